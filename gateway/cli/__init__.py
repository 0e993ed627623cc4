"""The command line `synod`: one module for each group of commands."""
