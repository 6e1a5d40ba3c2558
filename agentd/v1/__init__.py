"""Generated from proto/ by scripts/stubs; not edited by hand."""
