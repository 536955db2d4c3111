"""Settings of the whole suite."""

import hypothesis
import torch

torch.set_num_threads(1)  # tests run side by side, one process a core
hypothesis.settings.register_profile("suite", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("suite")

collect_ignore_glob = ["experiment/older_folders/*"]  # modules of the fixtures, two of the same name
