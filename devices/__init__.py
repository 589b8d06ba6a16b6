"""Boards: how to reach them, what state they are in, and how they are measured."""
