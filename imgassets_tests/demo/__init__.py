"""Tests of `imgassets.demo`."""
