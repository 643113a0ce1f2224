"""Tests of several machines that share only their services."""
