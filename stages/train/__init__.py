"""The stage that trains a system on cached features."""
