"""Writes the same networks by PyTorch's own ONNX export; runs in a separate process.

  TORCH_PYTHON experiments/performance/torch_onnx.py NETWORK FILE

It imports nothing of this project but `torch_side.py`, and needs onnx and onnxscript. Batch 1,
random weights, the constants inside.
"""

import sys

import torch
from torch import nn
from torch_side import CDCN, SIZE, CDCNs, FlexModal, ResNets, ViT, resnet50

MODELS = {
  'resnet50': resnet50,
  'cdcn': lambda: CDCN(folded=True),
  'vit_b': lambda: ViT(nn.Linear),
  'flexmodal': lambda: FlexModal(nn.Linear),
  'resnets': ResNets,
  'cdcns': lambda: CDCNs(folded=True),
}
THREE = ('flexmodal', 'resnets', 'cdcns')  # networks of three sensors


def main():
  name, file = sys.argv[1:]
  torch.manual_seed(0)
  model = MODELS[name]().eval()
  images = 3 if name in THREE else 1
  # Of one tensor three times, the exporter would encode one.
  x = tuple(torch.randn(1, 3, SIZE[name], SIZE[name]) for _ in range(images))
  torch.onnx.export(model, x, file, dynamo=True, external_data=False, optimize=True, verbose=False)


if __name__ == '__main__':
  main()
