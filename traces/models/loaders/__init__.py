"""Convert the models that packages carry in other formats to folders that transformers loads, once."""
