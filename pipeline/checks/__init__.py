"""Checks: whether a run is fresh and sound, and whether this machine can make one."""
