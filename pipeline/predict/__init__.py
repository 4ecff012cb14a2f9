"""Prediction on new posts: from a model's folder, texts and images to entities and relations."""
