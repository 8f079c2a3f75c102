"""Distillation: what a student is asked to match, where it is stored, and when."""
