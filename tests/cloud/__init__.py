"""ModelArts jobs on a local object storage and a stand-in for ModelArts' library."""
