"""Trained models to bundles: graphs built from weights, checked against torch, written whole."""
