"""Optimizers and schedules from their config."""

import optax

from fgjax.config import Optimizer


def learning_rate(config: Optimizer, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The learning rate by step.

    "step" multiplies by `decay_rate` every `decay_epochs` (LAPM: 0.09 every 50, GHNS every 40);
    "cosine" ends at 0; each may begin with `warmup_epochs` of linear warm-up.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    total = max(steps_per_epoch * epochs, warmup + 1)
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(config.learning_rate, total - warmup)
    elif config.schedule == "step":
        # Boundaries count from the first step, warm-up included.
        boundaries = {
            epoch * steps_per_epoch - warmup: config.decay_rate
            for epoch in range(config.decay_epochs, epochs, config.decay_epochs)
            if epoch * steps_per_epoch > warmup
        }
        main = optax.piecewise_constant_schedule(config.learning_rate, boundaries)
    else:
        main = optax.constant_schedule(config.learning_rate)
    if not warmup:
        return main
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([rise, main], [warmup])


def make(config: Optimizer, *, steps_per_epoch: int, epochs: int) -> optax.GradientTransformation:
    """SGD with momentum and L2 weight decay as in PyTorch, or AdamW."""
    schedule = learning_rate(config, steps_per_epoch=steps_per_epoch, epochs=epochs)
    steps = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.name == "adamw":
        steps.append(optax.adamw(schedule, weight_decay=config.weight_decay))
    else:
        steps += [
            optax.add_decayed_weights(config.weight_decay),
            optax.sgd(schedule, momentum=config.momentum or None),
        ]
    return optax.chain(*steps)
