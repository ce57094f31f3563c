"""The same networks in PyTorch, in its fastest forms; runs in a separate process.

  TORCH_PYTHON experiments/performance/torch_side.py NETWORK stock|onednn|folded THREADS
  TORCH_PYTHON experiments/performance/torch_side.py NETWORK WAY[+compiled] THREADS IMAGES TURNS

It imports nothing of this project. It reads lines, `train` or `infer`, and writes seconds, so that
the caller can interleave its measurements with others. `flexmodal` has two: `published`, a forward
pass of three encoders for each of four sub-protocols, and `shared`, which encodes each image once
for all four.

`onednn` sends ViT's linear layers to oneDNN as 1 x 1 convolutions; by default they go to MKL, whose
product is half as fast on some AMD processors. `folded` computes CDCN's central difference with one
kernel, as this project does, instead of the published two convolutions.

With IMAGES per batch it runs on a GPU: autocast to bfloat16, TURNS times for each line, then it
synchronises; `compiled` passes the model through torch.compile. The answer to the line `memory` is
the GPU's peak memory in bytes.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

SIZE = {'resnet50': 224, 'cdcn': 256, 'vit_b': 224, 'flexmodal': 224}
SIZE |= {'resnets': 224, 'cdcns': 256}
BATCH = {'resnet50': 8, 'cdcn': 2, 'vit_b': 4, 'flexmodal': 4}
BATCHES = 4  # of FlexModal's test set
PROTOCOLS = (False, False), (True, False), (False, True), (True, True)  # depth, ir beside RGB


class Bottleneck(nn.Module):
  def __init__(self, c, width, stride):
    super().__init__()
    out = 4 * width
    self.conv1, self.bn1 = nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
    self.down = None
    if stride != 1 or c != out:
      self.down = nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out))

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = F.relu(self.bn2(self.conv2(y)), inplace=True)
    y = self.bn3(self.conv3(y))
    return F.relu(y + (x if self.down is None else self.down(x)), inplace=True)


def resnet50():
  layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
  layers, c = [*layers, nn.MaxPool2d(3, 2, 1)], 64
  for i, blocks in enumerate((3, 4, 6, 3)):
    for j in range(blocks):
      layers.append(Bottleneck(c, 64 * 2**i, 2 if i and not j else 1))
      c = 4 * 64 * 2**i
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1))


class CentralDifference(nn.Module):
  def __init__(self, c, d, folded, theta=0.7):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(d, c, 3, 3) / (9 * c) ** 0.5)
    self.folded, self.theta = folded, theta

  def forward(self, x):
    total = self.weight.sum((2, 3), keepdim=True)
    if self.folded:
      return F.conv2d(x, self.weight - self.theta * F.pad(total, (1, 1, 1, 1)), padding=1)
    return F.conv2d(x, self.weight, padding=1) - self.theta * F.conv2d(x, total)


def unit(c, d, folded):
  layers = CentralDifference(c, d, folded), nn.BatchNorm2d(d), nn.ReLU(inplace=True)
  return nn.Sequential(*layers)


class ResNets(nn.Module):
  """A ResNet50 for each sensor, a convolution over the concatenated maps, a mean."""

  def __init__(self):
    super().__init__()
    self.streams = nn.ModuleList(resnet50()[:-3] for _ in range(3))
    mix = nn.Conv2d(3 * 2048, 2048, 3, padding=1, bias=False), nn.BatchNorm2d(2048), nn.ReLU()
    self.mix, self.head = nn.Sequential(*mix), nn.Linear(2048, 1)

  def forward(self, *images):
    maps = [stream(x) for stream, x in zip(self.streams, images, strict=True)]
    return self.head(self.mix(torch.cat(maps, 1)).mean((2, 3)))


class CDCN(nn.Module):
  def __init__(self, folded):
    super().__init__()
    self.stem, self.blocks, c = unit(3, 64, folded), nn.ModuleList(), 64
    for _ in range(3):
      layers = []
      for d in (128, 196, 128):
        layers.append(unit(c, d, folded))
        c = d
      self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1)))
    self.neck, self.map = unit(3 * c, c, folded), CentralDifference(c, 1, folded)

  def encode(self, x):
    """[B, 3, 256, 256] -> [B, 128, 32, 32]."""
    x, maps = self.stem(x), []
    for block in self.blocks:
      x = block(x)
      maps.append(F.interpolate(x, size=32, mode='bilinear', align_corners=False))
    return self.neck(torch.cat(maps, 1))

  def decide(self, x):
    live = F.relu(self.map(x))
    return 4 * (live.mean((1, 2, 3)) - 0.5)[:, None]

  def forward(self, x):
    return self.decide(self.encode(x))


class CDCNs(nn.Module):
  """A CDCN for each sensor up to its neck, a convolution over the concatenated maps, its map."""

  def __init__(self, folded):
    super().__init__()
    self.streams = nn.ModuleList(CDCN(folded) for _ in range(3))
    self.mix = unit(3 * 128, 128, folded)

  def forward(self, *images):
    maps = [stream.encode(x) for stream, x in zip(self.streams, images, strict=True)]
    return self.streams[0].decide(self.mix(torch.cat(maps, 1)))


class Linear(nn.Linear):
  """A linear layer over tokens [B, N, C] as a convolution, which oneDNN runs."""

  def forward(self, x):
    x = x.transpose(1, 2)[..., None]  # [B, C, N, 1], channels last in memory
    y = F.conv2d(x, self.weight[:, :, None, None], self.bias)
    return y[..., 0].transpose(1, 2)


class Layer(nn.Module):
  def __init__(self, linear, width=768, heads=12):
    super().__init__()
    self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
    self.qkv, self.proj = linear(width, 3 * width), linear(width, width)
    self.fc1, self.fc2 = linear(width, 4 * width), linear(4 * width, width)
    self.heads = heads

  def forward(self, x):
    B, N, D = x.shape
    q, k, v = self.qkv(self.norm1(x)).reshape(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D)
    x = x + self.proj(y)
    return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
  def __init__(self, linear):
    super().__init__()
    self.patches = nn.Conv2d(3, 768, 16, 16)
    self.token, self.place = (
      nn.Parameter(torch.zeros(1, 1, 768)),
      nn.Parameter(torch.zeros(197, 768)),
    )
    self.layers = nn.Sequential(*(Layer(linear) for _ in range(12)))
    self.norm, self.head = nn.LayerNorm(768, eps=1e-6), nn.Linear(768, 1)

  def encode(self, x):
    """[B, 3, 224, 224] -> tokens [B, 197, 768]."""
    x = self.patches(x).flatten(2).transpose(1, 2)
    x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
    return self.layers(x)

  def forward(self, x):
    return self.head(self.norm(self.encode(x))[:, 1:].mean(1))


class FlexModal(nn.Module):
  """Flex-Modal-FAS's released model (models/ViT_Base_CA.py): one ViT-B for all three sensors,
  cross-attention of depth's and infrared's channels to RGB's, a convolution, a mean."""

  def __init__(self, linear):
    super().__init__()
    self.vit = ViT(linear)
    self.mix = nn.Sequential(nn.Conv2d(768, 768, 3, padding=1), nn.BatchNorm2d(768), nn.ReLU())
    self.head = nn.Linear(768, 1)

  def encode(self, x):
    """[B, 3, 224, 224] -> channels [B, 768, 196]."""
    return self.vit.encode(x)[:, 1:].transpose(1, 2)

  def decide(self, rgb, depth, ir):
    x = rgb
    for query in (depth, ir):
      x = x + torch.softmax(query @ rgb.transpose(1, 2), -1) @ rgb
    return self.head(self.mix(x.reshape(len(x), 768, 14, 14)).mean((2, 3)))

  def forward(self, rgb, depth, ir):
    return self.decide(self.encode(rgb), self.encode(depth), self.encode(ir))


def main():
  name, way, threads, *gpu = sys.argv[1:]
  way, _, compiled = way.partition('+')
  device, (images, turns) = 'cpu', (BATCH[name], 1)
  if gpu:
    device, (images, turns) = 'cuda', map(int, gpu)
  torch.set_num_threads(int(threads))
  torch.manual_seed(0)
  models = {
    'resnet50': resnet50,
    'cdcn': lambda: CDCN(way == 'folded'),
    'vit_b': lambda: ViT(Linear if way == 'onednn' else nn.Linear),
    'flexmodal': lambda: FlexModal(Linear if way == 'onednn' else nn.Linear),
  }
  model = models[name]()
  model = model.to(device, memory_format=torch.channels_last)
  x = torch.randn(images, 3, SIZE[name], SIZE[name])
  x = x.to(device, memory_format=torch.channels_last)
  label = (torch.arange(len(x), device=device) % 2).float()
  optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)

  forward = torch.compile(model) if compiled else model

  def train():
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast('cuda', torch.bfloat16, enabled=bool(gpu)):
      loss = F.binary_cross_entropy_with_logits(forward(x)[:, 0], label)
    loss.backward()
    optimizer.step()

  @torch.inference_mode()
  def infer():
    model.eval()
    with torch.autocast('cuda', torch.bfloat16, enabled=bool(gpu)):
      forward(x)

  black = torch.full_like(x, -127.5 / 128)

  @torch.inference_mode()
  def published():
    model.eval()
    for depth, ir in PROTOCOLS:
      for _ in range(BATCHES):
        model(x, x if depth else black, x if ir else black)

  @torch.inference_mode()
  def shared():
    model.eval()
    nothing = model.encode(black[:1]).expand(len(x), -1, -1)
    for _ in range(BATCHES):
      rgb, depth, ir = (model.encode(x) for _ in range(3))
      for has_depth, has_ir in PROTOCOLS:
        model.decide(rgb, depth if has_depth else nothing, ir if has_ir else nothing)

  asked = {'train': train, 'infer': infer, 'published': published, 'shared': shared}
  for line in sys.stdin:
    if line.strip() == 'memory':
      print(torch.cuda.max_memory_allocated(), flush=True)
      continue
    start = time.perf_counter()
    for _ in range(turns):
      asked[line.strip()]()
    if gpu:
      torch.cuda.synchronize()
    print(time.perf_counter() - start, flush=True)


if __name__ == '__main__':
  main()
