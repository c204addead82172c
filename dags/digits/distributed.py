"""Trains the digits classifier in PyTorch on all processes of the job, data-parallel."""

from __future__ import annotations

import itertools
from typing import Any

from digits.data import Data, held_out_set, training_set
from digits.model import Model, Optimizer
from nemo_airflow import log_metrics, output_dir


def train(data: Data, model: Model, optimizer: Optimizer, seed: int = 0) -> dict[str, Any]:
    """Trains one classifier, each process on its share of the digits; the first process stores it.

    To be started by ``torchrun``, which sets the ranks in the environment.

    Args:
        data: The digits to use.
        model: The classifier.
        optimizer: How it is optimized; ``batch_size`` applies to each process.
        seed: Seed of all random numbers.

    Returns:
        ``world_size``, the number of processes; ``loss``; ``accuracy`` on held-out data.
    """
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(seed)
    images, labels = (torch.as_tensor(array) for array in training_set(data))
    mine = slice(rank, len(labels) - len(labels) % size, size)
    inputs, targets = images[mine].float() / 16, labels[mine]
    network = DistributedDataParallel(_network(torch.nn, model))
    kind = torch.optim.Adam if optimizer.method == "adam" else torch.optim.SGD
    steps = kind(network.parameters(), lr=optimizer.learning_rate, weight_decay=model.l2)
    print(f"rank {rank} of {size}: {len(targets)} digits", flush=True)
    loss = torch.tensor(float("nan"))
    for epoch in range(optimizer.epochs):
        for batch in torch.randperm(len(targets)).split(optimizer.batch_size):
            steps.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
            loss.backward()
            steps.step()
        if rank == 0:
            log_metrics({"train/loss": float(loss)}, step=epoch)
    images, labels = (torch.as_tensor(array) for array in held_out_set(data.until))
    with torch.no_grad():
        accuracy = float((network(images.float() / 16).argmax(1) == labels).float().mean())
    if rank == 0:
        torch.save(network.module.state_dict(), output_dir() / "model.pt")
    dist.destroy_process_group()
    return {"world_size": size, "loss": float(loss), "accuracy": accuracy}


def _network(nn: Any, model: Model) -> Any:
    activations = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid}
    sizes = [64, *model.hidden]
    layers: list[Any] = []
    for size, following in itertools.pairwise(sizes):
        layers += [nn.Linear(size, following), activations[model.activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
