"""How the arithmetic of a step is spread over devices."""
