"""One thread: the models of these tests are too small to gain from more, and lose much where cores are shared."""

import torch

torch.set_num_threads(1)
