"""The library that components share. It imports no component and no pipeline."""
