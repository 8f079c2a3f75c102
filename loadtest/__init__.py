"""Locust against the teacher and the student behind the same server: the paper's table 7, over HTTP only."""
