"""Bundles that are found, loaded, chosen and replaced."""
