"""Turns tasks into saved tensors on a loaded model: plan, pack, interpret."""
