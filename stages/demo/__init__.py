"""The demonstration: a corpus that images decide, drawn by the project, and how its networks were trained."""
