"""The load generators that can drive a cell, one a module."""
