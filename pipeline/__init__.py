"""What runs, checks, reproduces and reports the stages; each room is a folder."""
