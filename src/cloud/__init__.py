"""ModelArts jobs: data in, the recipe, results out."""
