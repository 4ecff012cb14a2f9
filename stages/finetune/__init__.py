"""The stage that trains a system end to end, through the backbone."""
