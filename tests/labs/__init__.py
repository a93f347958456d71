"""Tests of the labs, and of the tools around them."""
