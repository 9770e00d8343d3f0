"""Compiled operators for the CPU, and what puts them into a network."""
