"""The commands `synod chaos`, `synod check` and `synod sim`."""
