"""The models that can be trained, each readable in one sitting."""
