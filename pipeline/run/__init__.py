"""The configuration of a run, its stages, and how they are brought up to date."""
