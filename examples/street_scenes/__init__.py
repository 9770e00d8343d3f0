"""How street scenes are drawn: a canvas that keeps its polygons, what stands in a street, and the street."""
