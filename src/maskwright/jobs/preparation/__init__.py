"""The stages of `maskwright prepare` that know both text and tokens, and the order of all stages."""
