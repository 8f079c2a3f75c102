"""Encoders, word vectors, word features, teachers and students."""
