"""From words to states: which words stay, and the encoders that read them."""
