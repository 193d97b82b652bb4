"""What a model is to us: its source, tokenizer, module tree and site map."""
