"""Tests of the sample catalogue and its servers."""
