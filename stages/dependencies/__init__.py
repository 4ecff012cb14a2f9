"""The dependencies stage: a dependency tree of every text, over its own words."""
