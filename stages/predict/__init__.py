"""The predict stage: entities and relations of new posts."""
