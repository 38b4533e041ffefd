"""Plant the bugs that others made, one by one, and see that a test catches each.

    python tests/tools/mutants.py            all of them, a line each; exit code 1 if one survives
    python tests/tools/mutants.py discount   those whose description contains a word

A copy of the sources is changed, never the sources. Each mutant names the tests that should see it;
the first that fails is printed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    """A change of one place in one file."""

    what: str
    path: str  # below pg/
    old: str
    new: str
    tests: str  # arguments of pytest


MUTANTS = [
    # Batches of an older policy.
    Mutant(
        "a lag of one update less",
        "train.py",
        "    oldest = jax.tree.map(lambda x: x[0], state.history)\n",
        "    oldest = jax.tree.map(lambda x: x[min(1, len(x) - 1)], state.history)\n",
        "tests/core/test_lag.py -k ago",
    ),
    Mutant(
        "a history of the parameters after each update",
        "train.py",
        "            history=history,\n",
        "            history=_acting(config, state._replace(params=learned.params))[1],\n",
        "tests/core/test_lag.py -k ago",
    ),
    Mutant(
        "weights of a batch by the policy after its update",
        "diagnostics/training.py",
        "log_rho = log_ratio(policy, state.params, done.traj)",
        "log_rho = log_ratio(policy, done.state.params, done.traj)",
        "tests/core/test_lag.py -k weights",
    ),
    # Sequences.
    Mutant(
        "sequence that is not over at its longest",
        "envs/sequences.py",
        "        return (last == self._end) | (state.length >= longest)",
        "        return last == self._end",
        "tests/core/test_sequences.py -k 'at_its_longest'",
    ),
    Mutant(
        "sequence whose reward comes with every token",
        "envs/sequences.py",
        "reward = jnp.where(terminated, self._reward(state), 0.0)",
        "reward = self._reward(state)",
        "tests/core/test_sequences.py -k 'with_its_last_token'",
    ),
    Mutant(
        "sequence numbered as if tokens after the end token were not moved up",
        "envs/sequences.py",
        "        digit = tokens - (tokens > self._end)",
        "        digit = tokens",
        "tests/core/test_sequences.py -k 'order_of_all_sequences'",
    ),
    Mutant(
        "group of sequences in which each has a prompt of its own",
        "rollout.py",
        "        state = jax.tree.map(lambda x: x[leader], state)\n",
        "        state = jax.tree.map(lambda x: x[leader * 0 + jnp.arange(len(x))], state)\n",
        "tests/core/test_sequences.py -k 'completions_of_one_prompt'",
    ),
    Mutant(
        "prefix tree of sequences that grow at their beginning",
        "exact/tabular/prefix_tree.py",
        "(*tokens, token)",
        "(token, *tokens)",
        "tests/exact/test_prefix_tree.py -k 'bit_for_bit'",
    ),
    Mutant(
        "prefix tree of sequences that begins with every prompt as likely as another",
        "exact/tabular/prefix_tree.py",
        "np.concatenate([env.prompt_probabilities, ",
        "np.concatenate([np.full(env.num_prompts, 1 / env.num_prompts), ",
        "tests/exact/test_prefix_tree.py -k 'sums_over_all'",
    ),
    # Parts of one's own, given again.
    Mutant(
        "own environment that an export forgets",
        "commands/export.py",
        "            env=options.env,\n",
        "",
        "tests/runs/test_own_files.py -k 'exported_and_drawn'",
    ),
    Mutant(
        "own environment that is not drawn by its own method",
        "reports/drawings.py",
        "    if callable(own):",
        "    if not callable(own):",
        "tests/runs/test_own_files.py -k 'untrained_policy_of_one_s_own'",
    ),
    Mutant(
        "own file that has changed and whose results count as finished in a benchmark",
        "benchmarks/learning.py",
        "            allow_changed_code=self.allow_changed_code,\n",
        "            allow_changed_code=True,\n",
        "tests/benchmarks/test_benchmark.py -k changed_code",
    ),
    Mutant(
        "own part in a benchmark that is traced when its turn has come",
        "benchmarks/learning.py",
        "    check_own_parts(cells)\n",
        "",
        "tests/benchmarks/test_benchmark.py -k does_not_fit",
    ),
    Mutant(
        "own policy that the rows of a benchmark forget",
        "benchmarks/selection.py",
        "    return replace(config, **row.parts), hyperparams",
        "    return config, hyperparams",
        "tests/benchmarks/test_benchmark.py -k rows_of_their_own",
    ),
    Mutant(
        "own estimator in a benchmark without the settings of another that are asked for",
        "benchmarks/selection.py",
        "settings_of=settings_of or estimator",
        "settings_of=estimator",
        "tests/benchmarks/test_benchmark.py -k rows_of_their_own",
    ),
    # Policy gradients over sequences.
    Mutant(
        "sequences are compared with the mean of the batch instead of their group's",
        "estimators/sequences.py",
        "return baselines.group_centred(total, same)",
        "return baselines.centred(total)",
        "tests/core/test_groups.py -k within_groups",
    ),
    Mutant(
        "sequences have the padded length",
        "estimators/sequences.py",
        "return jnp.sum(traj.valid, axis=0, dtype=traj.reward.dtype)",
        "return jnp.full(traj.valid.shape[1], float(len(traj.valid)))",
        "tests/exact/test_sequence_means.py -k 'preset and lag'",
    ),
    Mutant(
        "sequences regularised by the divergence of the reference from the policy",
        "estimators/sequences.py",
        "log_ratio = log_prob - reference.log_prob",
        "log_ratio = reference.log_prob - log_prob",
        "tests/exact/test_sequence_means.py -k kl_estimate",
    ),
    Mutant(
        "sequences whose reference moves with the policy",
        "estimators/sequences.py",
        "return Credit(psi, (), state, extra=extra)",
        "return Credit(psi, (), params.policy if with_reference else (), extra=extra)",
        "tests/core/test_switches.py -k does_not_move",
    ),
    Mutant(
        "sequences whose ratio is taken against the policy that learns",
        "estimators/sequences.py",
        "of_step = jnp.where(traj.valid, log_prob - traj.log_prob, 0.0)",
        "of_step = jnp.where(traj.valid, log_prob - jax.lax.stop_gradient(log_prob), 0.0)",
        "tests/exact/test_sequence_means.py -k 'ratio_and_clip'",
    ),
    Mutant(
        "sequences whose last token is not scored",
        "estimators/base.py",
        "sums = {name: jnp.sum(jnp.where(traj.valid, x, 0.0)) for name, x in terms.items()}",
        "sums = {n: jnp.sum(jnp.where(traj.valid & ~traj.done, x, 0.0)) for n, x in terms.items()}",
        "tests/exact/test_sequence_means.py -k 'preset and lag'",
    ),
    Mutant(
        "sequences whose penalty in the loss is not averaged as their steps are",
        "estimators/sequences.py",
        'of_steps = divisor if switches.kl_place == "loss" else 1.0',
        "of_steps = 1.0",
        "tests/exact/test_sequence_means.py -k 'penalty_in_the_loss'",
    ),
    # Searches.
    Mutant(
        "rung of halving that goes on from the runs of other configurations",
        "sweep/rungs.py",
        "        return self.configurations[g] * num_seeds + s",
        "        return g * num_seeds + s",
        "tests/runs/test_search.py -k 'of_that_length'",
    ),
    Mutant(
        "rung of halving from which the worst go on",
        "sweep/rungs.py",
        "ranked[: max(1, num_configurations // eta)]",
        "ranked[-max(1, num_configurations // eta) :]",
        "tests/runs/test_search.py -k 'go_on or survivors'",
    ),
    Mutant(
        "rung of halving in which each trains to the end",
        "sweep/driver.py",
        "            until=num_updates,\n",
        "",
        "tests/runs/test_search.py -k 'of_that_length'",
    ),
    Mutant(
        "rung of halving that is ranked below the one before it",
        "sweep/search.py",
        "(not len(r.scores), -r.stage[name])",
        "(not len(r.scores), r.stage[name])",
        "tests/runs/test_search.py -k 'come_first'",
    ),
    # Action masks.
    Mutant(
        "action mask of the next observation stored with this one's action",
        "rollout.py",
        "        obs=_stored(env, state.obs),",
        "        obs=_stored(env, transition.next_obs),",
        "tests/core/test_masks.py -k 'never_taken and method'",
    ),
    Mutant(
        "action mask that leaves illegal actions a little probability",
        "distributions.py",
        "jnp.where(legal, self.logits, -jnp.inf)",
        "jnp.where(legal, self.logits, self.logits - 12.0)",
        "tests/core/test_masks.py -k 'alone'",
    ),
    Mutant(
        "action mask forgotten by the exact references of the discounted chain",
        "exact/tabular/exact.py",
        "    pi = jax.nn.softmax(of_legal(mdp, logits))\n",
        "    pi = jax.nn.softmax(logits)\n",
        "tests/core/test_masks.py -k 'references'",
    ),
    # A critic that sees more than the policy.
    Mutant(
        "policy that is shown what the critic alone should see",
        "networks.py",
        "_head(config, space)), env, env.views.policy)",
        "_head(config, space)), env, env.views.critic)",
        "tests/core/test_views.py -k 'neither and entries'",
    ),
    Mutant(
        "critic that is shown the state before the step as the successor",
        "envs/views.py",
        "            state, obs, *rest = step(key, state, action, params)\n"
        "            return state, self._kept(obs, state, params), *rest",
        "            after, obs, *rest = step(key, state, action, params)\n"
        "            return after, self._kept(obs, state, params), *rest",
        "tests/core/test_views.py -k 'successor'",
    ),
    Mutant(
        "critic that is left with the policy's view",
        "envs/views.py",
        "    return Views(POLICY, CRITIC, (), entries, critic_entries, apart=True)",
        "    return Views(POLICY, POLICY, (), entries, critic_entries, apart=True)",
        "tests/core/test_views.py -k 'at_the_gradient or without_bias or each_sees'",
    ),
    # Observations that are trees.
    Mutant(
        "features of the arrays of an observation joined without the last",
        "layers/torsos.py",
        "jnp.concatenate([part(x) for part, x in pairs], axis=-1)",
        "jnp.concatenate([part(x) for part, x in pairs][:-1], axis=-1)",
        "tests/core/test_spaces.py -k 'leaf_by_leaf'",
    ),
    # Several actions at once.
    Mutant(
        "product distribution that scores its first action alone",
        "distributions.py",
        "        return _sum([part.log_prob(x) for part, x in pairs])",
        "        return [part.log_prob(x) for part, x in pairs][0]",
        "tests/core/test_spaces.py -k 'joint'",
    ),
    Mutant(
        "product distribution whose parts share their noise",
        "distributions.py",
        "        keys = jax.random.split(key, len(self.parts))",
        "        keys = [key] * len(self.parts)",
        "tests/core/test_spaces.py -k 'joint'",
    ),
    # The discount and the clock.
    Mutant(
        "γᵗ dropped from the reward to go",
        "estimators/base.py",
        "returns.discounted_sum(returns.discount_powers(traj.reward, h.gamma) * traj.reward, 1.0)",
        "returns.discounted_sum(traj.reward, h.gamma)",
        "tests/exact/test_unbiased.py",
    ),
    Mutant(
        "γᵗ dropped from bootstrapped advantages",
        "estimators/base.py",
        "** (time * (1.0 - h.undiscounted_state_weighting))",
        "** (0.0 * time)",
        "tests/exact/test_unbiased.py -k gae",
    ),
    Mutant(
        "t counted from the beginning of the rollout",
        "rollout.py",
        "return _where(row.done, _fresh(env, policy, *reset), moved)",
        "return _where(row.done, _fresh(env, policy, *reset)._replace(time=moved.time), moved)",
        "tests/core/test_rollout.py tests/exact/test_sampled.py -k 'windows or time'",
    ),
    Mutant(
        "γᵗ by the row of the array, not by the step of the episode",
        "estimators/base.py",
        "** (time * (1.0",
        "** (jnp.arange(len(traj.time))[:, None] * (1.0",
        "tests/core/test_estimators.py",
    ),
    # Truncation and termination.
    Mutant(
        "one done for both: nothing is bootstrapped at a time limit",
        "estimators/base.py",
        "return Valued(traj.reward, traj.terminated,",
        "return Valued(traj.reward, traj.done,",
        "tests/exact/test_unbiased.py -k gae",
    ),
    Mutant(
        "a terminal state's value is bootstrapped",
        "returns.py",
        "return reward + gamma * jnp.where(terminated, 0.0, v_tp1) - v_t",
        "return reward + gamma * v_tp1 - v_t",
        "tests/core/test_returns.py",
    ),
    Mutant(
        "truncation wins where both are set",
        "estimators/base.py",
        "return Valued(traj.reward, traj.terminated,",
        "return Valued(traj.reward, traj.terminated & ~traj.truncated,",
        "tests/exact/test_unbiased.py tests/core/test_estimators.py",
    ),
    Mutant(
        "the successor at an end is the observation after the reset",
        "rollout.py",
        "moved), (row, ended)",
        "moved), (row._replace(next_obs=_where(row.done, reset[1], row.next_obs)), ended)",
        "tests/core/test_rollout.py",
    ),
    Mutant(
        "a horizon that bounds evaluation and not training by windows",
        "rollout.py",
        "state, config.num_steps, config.horizon)",
        "state, config.num_steps, None)",
        "tests/core/test_rollout.py -k horizon_bounds",
    ),
    Mutant(
        "the trace of gae leaks over a truncation",
        "returns.py",
        "return discounted_sum(delta, gamma * lambda_ * _unless(terminated | truncated, reward))",
        "return discounted_sum(delta, gamma * lambda_ * _unless(terminated, reward))",
        "tests/core/test_returns.py",
    ),
    Mutant(
        "the trace of v-trace leaks over an end",
        "returns.py",
        "jnp.minimum(clip_c, rho) * _unless(done, reward)\n    )",
        "jnp.minimum(clip_c, rho))",
        "tests/core/test_returns.py",
    ),
    Mutant(
        "done off by one",
        "returns.py",
        "return discounted_sum(reward, gamma * _unless(done, reward))",
        "return discounted_sum(reward, gamma * _unless(jnp.roll(done, 1, axis=0), reward))",
        "tests/core/test_returns.py",
    ),
    Mutant(
        "n steps are n - 1",
        "returns.py",
        "n = jnp.asarray(n).astype(int)",
        "n = jnp.asarray(n).astype(int) - 1",
        "tests/core/test_returns.py",
    ),
    Mutant(
        "a discount below 1 is cut to 0 in whole numbers",
        "inputs.py",
        "return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)",
        "return array",
        "tests/core/test_returns.py -k whole_numbers",
    ),
    # Masks and means.
    Mutant(
        "a mask that ends one step early",
        "rollout.py",
        "valid=alive,",
        "valid=alive & ~row.done,",
        "tests/core/test_rollout.py",
    ),
    Mutant(
        "no mask",
        "rollout.py",
        "valid=alive,",
        "valid=jnp.ones_like(alive),",
        "tests/core/test_rollout.py",
    ),
    Mutant(
        "rewards after the end",
        "rollout.py",
        "reward=jnp.where(alive, row.reward, 0.0),",
        "reward=row.reward,",
        "tests/core/test_rollout.py",
    ),
    Mutant(
        "the mean over valid steps",
        "estimators/base.py",
        "return total / num_envs, sums",
        "return total / traj.valid.sum(), sums",
        "tests/exact/test_unbiased.py",
    ),
    Mutant(
        "the rollout stops where the first episode ends",
        "fast/scans.py",
        "blocks.largest(alive(carry).any())",
        "blocks.largest(alive(carry).all())",
        "tests/core/test_scans.py",
    ),
    Mutant(
        "networks go on seeing what follows an end",
        "rollout.py",
        "after = after._replace(obs=_where(goes_on, moved.obs, state.obs))",
        "after = after._replace(obs=_where(alive, moved.obs, state.obs))",
        "tests/core/test_nan_ends.py -k episodes",
    ),
    Mutant(
        "the critic sees the observation of a terminal state",
        "estimators/base.py",
        "return jnp.where(ended, obs, next_obs)",
        "return next_obs",
        "tests/core/test_nan_ends.py -k network",
    ),
    Mutant(
        "the value after an end is multiplied by 0",
        "returns.py",
        "return reward + gamma * jnp.where(terminated, 0.0, v_tp1) - v_t",
        "return reward + gamma * _unless(terminated, reward) * v_tp1 - v_t",
        "tests/core/test_nan_ends.py -k terminal_successor",
    ),
    Mutant(
        "a critic's [T, B, 1] is broadcast against [T, B]",
        "estimators/base.py",
        'return per_step("the critic\'s V", v, rows, ONE_NUMBER)',
        "return v",
        "tests/core/test_shapes.py -k critic",
    ),
    Mutant(
        "weights of steps are taken for weights of episodes where there are as many of both",
        "estimators/base.py",
        "if len(shape) == 1 and steps[0] == steps[1]:",
        "if len(shape) == 1 and steps[0] != steps[1]:",
        "tests/core/test_shapes.py -k weight",
    ),
    Mutant(
        "psi alone is taken apart along its steps",
        "estimators/base.py",
        "if not isinstance(weighed, tuple | list) or len(weighed) not in (3, 4, 5):",
        "if False:",
        "tests/core/test_estimator_checks.py -k 'psi and alone'",
    ),
    Mutant(
        "one advantage alone is standardised, and nothing is trained",
        "settings/checks.py",
        "if steps < 2:",
        "if steps < 1:",
        "tests/core/test_minibatches.py -k standardised",
    ),
    Mutant(
        "a metric that is NaN on purpose stops a program under debug_nans",
        "nonfinite.py",
        'return STAND_IN if settings.jax_debug_nans else float("nan")',
        'return float("nan")',
        "tests/core/test_nonfinite.py -k debug_nans",
    ),
    # Images.
    Mutant(
        "channels that come first are not told",
        "images.py",
        'return "chw" if channels_first else "hwc"',
        'return "hwc"',
        "tests/core/test_images.py -k told_by_the_shape",
    ),
    Mutant(
        "channels that come first are convolved as rows",
        "networks.py",
        'channels_first=layout == "chw"',
        "channels_first=False",
        "tests/core/test_images.py -k both_layouts",
    ),
    Mutant(
        "frames of bytes reach the network unscaled",
        "images.py",
        "return (obs - axes(low)) / axes(high - low)",
        "return obs",
        "tests/core/test_images.py -k scaled_by_the_bounds",
    ),
    # Torsos.
    Mutant(
        "a convolution without its stride",
        "layers/torsos.py",
        "self.hidden.layer(patches(x, size, stride), channels)",
        "self.hidden.layer(patches(x, size, 1), channels)",
        "tests/core/test_networks.py -k follow_each_other",
    ),
    Mutant(
        "layer norm after the nonlinearity",
        "layers/torsos.py",
        "            x = layer_norm()(x)\n        return self.activation(x)",
        "            return layer_norm()(self.activation(x))\n        return self.activation(x)",
        "tests/core/test_networks.py -k formula",
    ),
    Mutant(
        "the critic has the policy's widths",
        "networks.py",
        "dataclasses.replace(config, hidden_sizes=widths, critic_hidden_sizes=None)",
        "dataclasses.replace(config, critic_hidden_sizes=None)",
        "tests/core/test_networks.py -k widths_of_its_own",
    ),
    # Actions and their densities.
    Mutant(
        "the score at the clipped action",
        "rollout.py",
        "        action=action,\n",
        "        action=jnp.clip(action, -0.5, 0.6) if action.dtype.kind == 'f' else action,\n",
        "tests/core/test_continuous.py -k score",
    ),
    Mutant(
        "an action that carries its derivative into the score",
        "distributions.py",
        "return jax.lax.stop_gradient(self.reparameterised(noise))",
        "return self.reparameterised(noise)",
        "tests/core/test_distributions.py",
    ),
    Mutant(
        "the mean of log-probabilities over action dimensions",
        "distributions.py",
        "return jnp.sum(-0.5 * z**2 - self.log_std - _LOG_SQRT_2PI, axis=-1)",
        "return jnp.mean(-0.5 * z**2 - self.log_std - _LOG_SQRT_2PI, axis=-1)",
        "tests/core/test_distributions.py",
    ),
    Mutant(
        "log(softmax + ε)",
        "distributions.py",
        "        log_p = jax.nn.log_softmax(self.logits)\n        return jnp.take",
        "        log_p = jnp.log(jax.nn.softmax(self.logits) + 1e-3)\n        return jnp.take",
        "tests/exact/test_unbiased.py",
    ),
    Mutant(
        "0 log 0 of forbidden actions",
        "distributions.py",
        "return jnp.where(allowed, jnp.exp(log_p), 0.0), jnp.where(allowed, log_p, 0.0)",
        "return jax.nn.softmax(self.logits), jax.nn.log_softmax(self.logits)",
        "tests/core/test_distributions.py",
    ),
    Mutant(
        "an unstable log(1 - tanh²)",
        "distributions.py",
        "return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))",
        "return jnp.log(1.0 - jnp.tanh(u) ** 2)",
        "tests/core/test_distributions.py",
    ),
    Mutant(
        "the density, not the mass, beyond the bounds",
        "distributions.py",
        "censored = jnp.where(\n"
        "            sample <= self.low, below, jnp.where(sample >= self.high, above, inside)\n"
        "        )",
        "censored = inside + 0.0 * (below + above)",
        "tests/core/test_continuous.py -k censored",
    ),
    # What must not be differentiated, and what must.
    Mutant(
        "Ψ is not a constant",
        "estimators/base.py",
        "return jax.lax.stop_gradient((batch, credit.state))",
        "return batch, credit.state",
        "tests/core/test_estimators.py",
    ),
    Mutant(
        "a pathwise gradient through dynamics that detach the state",
        "envs/registry.py",
        "return env.with_transition_gradients()",
        "return env",
        "tests/core/test_pathwise.py",
    ),
    Mutant(
        "DiCE without the scores of earlier actions",
        "surrogates.py",
        "magic_box(jnp.cumsum(log_prob, axis=0)), axis=0)",
        "magic_box(log_prob), axis=0)",
        "tests/exact/test_unbiased.py -k orders",
    ),
    Mutant(
        "loaded DiCE without its second box",
        "surrogates.py",
        "(magic_box(w) - magic_box(w - log_prob))",
        "(magic_box(w) - 1.0)",
        "tests/exact/test_unbiased.py -k orders",
    ),
    # Random numbers.
    Mutant(
        "the same key at every update",
        "train.py",
        "jax.random.fold_in(step_key, i)",
        "jax.random.fold_in(step_key, 0 * i)",
        "tests/core/test_train.py",
    ),
    Mutant(
        "one key for all environments",
        "envs/base.py",
        "(jax.random.split(key, num_envs), params)",
        "(jnp.stack([key] * num_envs), params)",
        "tests/core/test_envs.py tests/core/test_rollout.py",
    ),
    Mutant(
        "one key for the action and for the dynamics",
        "rollout.py",
        "action_key, env_key = jax.random.split(jax.random.fold_in(key, time))",
        "action_key = env_key = jax.random.fold_in(key, time)",
        "tests/core/test_train.py -k key",
    ),
    Mutant(
        "a key of the old kind is taken for noise",
        "distributions.py",
        "is_noise, got = jnp.issubdtype(noise.dtype, jnp.floating), noise.dtype",
        "is_noise, got = True, noise.dtype",
        "tests/core/test_distributions.py -k made_of_noise",
    ),
    Mutant(
        "four seeds are taken for a key",
        "inputs.py",
        "(raw and shape == _raw_key_shape()):",
        "(raw and shape in ((2,), (4,))):",
        "tests/core/test_train.py -k 'four and seeds'",
    ),
    # Behaviour and target.
    Mutant(
        "the behaviour's log-probabilities are not those of its actions",
        "rollout.py",
        "log_prob=dist.log_prob(action),",
        "log_prob=0.99 * dist.log_prob(action),",
        "tests/core/test_rollout.py",
    ),
    Mutant(
        "an importance weight upside down",
        "estimators/base.py",
        "jnp.where(traj.valid, log_prob - traj.log_prob, 0.0)",
        "jnp.where(traj.valid, traj.log_prob - log_prob, 0.0)",
        "tests/exact/test_unbiased.py -k importance",
    ),
    Mutant(
        "one ratio for importance sampling by decision",
        "estimators/off_policy.py",
        "jnp.exp(jnp.cumsum(log_rho, axis=0))",
        "jnp.exp(log_rho)",
        "tests/exact/test_unbiased.py -k per_decision",
    ),
    Mutant(
        "clipping without the minimum",
        "surrogates.py",
        "return jnp.minimum(ratio * psi, jnp.clip(ratio, 1 - low, 1 + high) * psi)",
        "return jnp.clip(ratio, 1 - low, 1 + high) * psi",
        "tests/core/test_surrogates.py",
    ),
    Mutant(
        "the policy-gradient term of v-trace mixed by λ",
        "returns.py",
        "advantage = weight * td_error(reward, terminated, v_t, target_tp1, gamma)",
        "advantage = correction",
        "tests/exact/test_unbiased.py -k vtrace",
    ),
    Mutant(
        "the ratio of the step before in the trace of v-trace",
        "returns.py",
        "gamma * lambda_ * jnp.minimum(clip_c, rho)",
        "gamma * lambda_ * jnp.minimum(clip_c, jnp.roll(rho, 1, axis=0))",
        "tests/core/test_returns.py tests/exact/test_unbiased.py -k vtrace",
    ),
    # Distributions.
    Mutant(
        "the divergence across masks is a finite number",
        "distributions.py",
        "impossible = jnp.any((p > 0) & jnp.isneginf(other.logits), axis=-1)",
        "impossible = jnp.any((p > 2) & jnp.isneginf(other.logits), axis=-1)",
        "tests/core/test_distributions.py -k masks",
    ),
    Mutant(
        "the divergence of two classes of distributions is a number",
        "distributions.py",
        "if not (isinstance(other, type(one)) or isinstance(one, type(other))):",
        "if False:",
        "tests/core/test_distributions.py -k two_of_a_kind",
    ),
    Mutant(
        "one number is broadcast to the vector of an action",
        "distributions.py",
        "if array.shape[-1:] != shape[-1:] or not _broadcasts(",
        "if not _broadcasts(",
        "tests/core/test_distributions.py -k no_vector",
    ),
    # Baselines.
    Mutant(
        "a baseline that contains its own episode",
        "baselines.py",
        "return (jnp.sum(x, axis=-1, keepdims=True) - x) / (n - 1)",
        "return jnp.broadcast_to(jnp.mean(x, axis=-1, keepdims=True), x.shape)",
        "tests/exact/test_unbiased.py -k leave_one_out",
    ),
    Mutant(
        "an optimal baseline in sample",
        "baselines.py",
        "    return before + after",
        "    return before + after + x",
        "tests/exact/test_unbiased.py -k optimal",
    ),
    Mutant(
        "a group's baseline that contains its own episode",
        "baselines.py",
        "others = same_group & ~jnp.eye(len(x), dtype=bool)",
        "others = same_group",
        "tests/exact/test_unbiased.py -k group",
    ),
    Mutant(
        "numbers of groups are broadcast as pairs",
        "baselines.py",
        "if len(shape) != 1 or pairs.shape != (*shape, *shape):",
        "if len(shape) != 1:",
        "tests/core/test_baselines.py -k no_pairs",
    ),
    Mutant(
        "groups across initial states",
        "estimators/base.py",
        "return number[:, None] == number[None, :]",
        "return jnp.ones((len(number), len(number)), bool)",
        "tests/core/test_estimators.py tests/core/test_groups.py -k group",
    ),
    Mutant(
        "groups told by equal first observations",
        "estimators/base.py",
        "    number = traj.group[0]\n    return number[:, None] == number[None, :]",
        "    number = traj.obs[0].reshape(traj.obs.shape[1], -1)\n"
        "    return jnp.all(number[:, None] == number[None, :], axis=-1)",
        "tests/core/test_groups.py -k coincide",
    ),
    Mutant(
        "minibatches cut groups",
        "train.py",
        "order = groups[..., None] * config.group_size + jnp.arange(config.group_size)[None, None]",
        "order = groups[..., None] + len(groups[0]) * jnp.arange(config.group_size)[None, None]",
        "tests/core/test_groups.py -k minibatch",
    ),
    Mutant(
        "a moving average that has seen the batch",
        "estimators/episodic.py",
        "return Credit(total - state.value(), ",
        "return Credit(total - state.update(total.mean(), h.baseline_decay).value(), ",
        "tests/exact/test_unbiased.py tests/exact/test_sampled.py -k moving",
    ),
    Mutant(
        "an action-dependent baseline without its correction",
        "estimators/action_values.py",
        "q = q + jax.nn.one_hot(",
        "q = jax.nn.one_hot(",
        "tests/exact/test_unbiased.py -k action_dependent",
    ),
    Mutant(
        "all actions, γᵗ dropped",
        "estimators/action_values.py",
        "h.gamma)\n        return Credit(returns.discount_powers(q, h.gamma) * q, target=to_go)",
        "h.gamma)\n        return Credit(q, target=to_go)",
        "tests/exact/test_unbiased.py -k all_action",
    ),
    Mutant(
        "a weight that holds an array of its own is of steps where there are as many as episodes",
        "estimators/base.py",
        "    if is_of_episodes:\n",
        "    if is_of_episodes and longer == same:\n",
        "tests/core/test_shapes.py -k weight",
    ),
    Mutant(
        "weights that are held for each step are taken for those of episodes",
        "estimators/base.py",
        "(wider == more and longer != more) or (wider is None and longer == same)",
        "longer == same",
        "tests/core/test_shapes.py -k weight",
    ),
    Mutant(
        "every mapped run has the memory of all for states that are drawn ahead",
        "rollout.py",
        "if devices.mapped_runs() * of_one_run > FRESH_BYTES:",
        "if of_one_run > FRESH_BYTES:",
        "tests/core/test_rollout.py -k mapped_runs",
    ),
    Mutant(
        "a window draws a large initial state for every step ahead",
        "rollout.py",
        "        return jax.random.key_data(keys), drawn_here\n",
        "        pass\n",
        "tests/core/test_rollout.py -k large_state",
    ),
    # Rounding that is taken for a signal.
    Mutant(
        "rounding errors are divided by their own spread",
        "baselines.py",
        "return jnp.where(all_equal, jnp.inf, std + 1e-8)",
        "return jnp.where(std > 0, std + 1e-8, jnp.inf)",
        "tests/core/test_rounding.py -k 'another_order or advantages_are_not'",
    ),
    Mutant(
        "a floor of the spread that is no longer relative",
        "rounding.py",
        "return UNITS * jnp.finfo(x.dtype).eps * jnp.abs(x)",
        "return jnp.full_like(x, 1e-4)",
        "tests/core/test_rounding.py -k 'explained or relative'",
    ),
    Mutant(
        "a floor far above what rounding leaves of a sum",
        "rounding.py",
        "eps * (1 + additions) * jnp.sum(jnp.abs(terms), axis=0)",
        "eps * 4 * jnp.sqrt(count) * jnp.sum(jnp.abs(terms), axis=0)",
        "tests/core/test_rounding.py -k thousand_steps",
    ),
    Mutant(
        "a floor far above what rounding leaves of a number",
        "rounding.py",
        "UNITS = 8\n",
        "UNITS = 64\n",
        "tests/core/test_rounding.py -k 'large_targets or large_offset'",
    ),
    Mutant(
        "returns are added up one reward after another",
        "rounding.py",
        "    while len(terms) > 1:",
        "    terms = jax.lax.scan(lambda total, x: (total + x, None), 0 * terms[0], "
        "terms)[0][None]\n    while len(terms) > 1:",
        "tests/core/test_rounding.py -k 'thousand_steps or another_order'",
    ),
    Mutant(
        "equal targets have a variance to explain",
        "diagnostics/weights.py",
        "unexplainable = are_equal | (variance <= 0)",
        "unexplainable = variance <= 0",
        "tests/core/test_rounding.py -k explained",
    ),
    Mutant(
        "rewards are scaled before any was seen",
        "normalisation.py",
        "differs = any_returns & (var > rounding.of_size(mean) ** 2)",
        "differs = var < jnp.inf",
        "tests/core/test_rounding.py -k scaled",
    ),
    Mutant(
        "rewards of the first batch are scaled by a range that nobody has seen",
        "normalisation.py",
        "    least = jnp.maximum(high - low, 0.0) / LIMIT\n",
        "    differs, least = differs | ~any_returns, jnp.abs(high - low) / LIMIT\n",
        "tests/core/test_rounding.py -k first_batch",
    ),
    Mutant(
        "rewards are scaled by the deviation of a return that was seen once among zeros",
        "normalisation.py",
        "jnp.maximum(var + 1e-8, least**2)",
        "var + 1e-8",
        "tests/core/test_rounding.py -k 'rare_reward or first_rewards'",
    ),
    Mutant(
        "scaled rewards are clipped",
        "normalisation.py",
        "return traj._replace(reward=traj.reward / scale)",
        "return traj._replace(reward=jnp.clip(traj.reward / scale, -LIMIT, LIMIT))",
        "tests/core/test_rounding.py -k 'rare_reward or large_offset'",
    ),
    Mutant(
        "a mean of equal samples that is off by the rounding of their sum",
        "normalisation.py",
        "sample = jnp.where(valid[:1, :1].any(), self._from_mean(x[:1, :1]), 0.0)",
        "sample = 0.0 * self._from_mean(x[:1, :1])",
        "tests/core/test_rounding.py -k constant_feature",
    ),
    Mutant(
        "entropy of the behaviour in the reward of the policy",
        "estimators/base.py",
        "return traj._replace(reward=traj.reward - h.temperature * finite)",
        "return traj._replace(reward=traj.reward - 0.0 * finite)",
        "tests/exact/test_unbiased.py -k temperature",
    ),
    # Other directions.
    Mutant(
        "the trace of gpomdp is cut by a reset",
        "estimators/average_reward.py",
        "returns.discounted_sum(traj.reward, h.beta)",
        "returns.reward_to_go(traj.reward, traj.done, h.beta)",
        "tests/core/test_estimators.py -k fading",
    ),
    Mutant(
        "storm and svrpg without importance weights",
        "optimizers/variance_reduction.py",
        "weight = jnp.exp(jnp.sum(log_ratio(policy, params, batch.traj), axis=0))",
        "weight = jnp.exp(0.0 * jnp.sum(log_ratio(policy, params, batch.traj), axis=0))",
        "tests/core/test_optimizers.py",
    ),
    Mutant(
        "the Fisher matrix by another state weighting than the gradient's",
        "optimizers/curvature.py",
        "return jnp.asarray(gamma, traj.reward.dtype) ** traj.time",
        "return jnp.asarray(gamma, traj.reward.dtype) ** (0 * traj.time)",
        "tests/core/test_optimizers.py",
    ),
    Mutant(
        "antithetic differences without the 2",
        "estimators/evolution.py",
        "return (up - down) / (2 * sigma) * noise",
        "return (up - down) / sigma * noise",
        "tests/core/test_evolution.py",
    ),
    # Memories, running statistics, held actions, several steps on a batch.
    Mutant(
        "a memory goes on into the next episode",
        "layers/recurrent.py",
        "lambda c: jnp.where(first[:, None], 0.0, c), carry)",
        "lambda c: c, carry)",
        "tests/core/test_recurrent.py",
    ),
    Mutant(
        "a linear recurrence goes on into the next episode",
        "layers/linear_recurrences.py",
        "return _scanned(jnp.where(resets, 0.0, a), b)",
        "return _scanned(a, b)",
        "tests/core/test_cells.py -k mingru",
    ),
    Mutant(
        "a linear recurrence is learned with the factors of the step before",
        "layers/linear_recurrences.py",
        "jnp.concatenate([a[1:], none])",
        "jnp.concatenate([none, a[:-1]])",
        "tests/core/test_cells.py -k sequence",
    ),
    Mutant(
        "a transformer sees the episode before",
        "layers/attention.py",
        "start = jnp.where(first, time, -count[None])",
        "start = jnp.where(first, -count[None], -count[None])",
        "tests/core/test_cells.py -k transformer",
    ),
    Mutant(
        "a chunk of a transformer does not look at the one before",
        "layers/attention.py",
        "jnp.concatenate([parts[:, :-1], parts[:, 1:]], axis=2)",
        "jnp.concatenate([parts[:, 1:], parts[:, 1:]], axis=2)",
        "tests/core/test_cells.py -k transformer",
    ),
    Mutant(
        "a memory is learned from nothing instead of from where the window began",
        "estimators/base.py",
        "carry = _before(traj.carry.policy) if policy.recurrent else None",
        "carry = None",
        "tests/core/test_recurrent.py",
    ),
    Mutant(
        "the critic's memory does not see what the policy sees",
        "networks.py",
        "return Carries(policy_carry, critic_carry), dist",
        "return Carries(policy_carry, carry.critic), dist",
        "tests/core/test_recurrent.py",
    ),
    Mutant(
        "the memory is reset before a successor is seen",
        "estimators/base.py",
        "critic.apply(own, carry, next_obs, jnp.zeros_like(row.first))[1]",
        "critic.apply(own, carry, next_obs, jnp.ones_like(row.first))[1]",
        "tests/core/test_recurrent.py",
    ),
    Mutant(
        "steps after an episode's end are counted in the statistics",
        "normalisation.py",
        "mask = valid.reshape(",
        "mask = jnp.ones_like(valid).reshape(",
        "tests/core/test_normalisation.py",
    ),
    Mutant(
        "the running return goes on into the next episode",
        "normalisation.py",
        "gamma * (1.0 - traj.first[::-1].astype(reward.dtype))",
        "gamma * jnp.ones_like(reward)",
        "tests/core/test_normalisation.py",
    ),
    Mutant(
        "a batch is never left",
        "train.py",
        'stay=learned.stay | (metrics.get("kl", 0.0) > h.stop_kl)',
        "stay=learned.stay",
        "tests/core/test_train.py -k 'too_far or stop_kl'",
    ),
    Mutant(
        "an estimator of the family accepts what the table does not say",
        "estimators/family.py",
        "_replace(accepts=facts.collect)",
        "_replace()",
        "tests/core/test_estimators.py -k accept",
    ),
    Mutant(
        "an estimator whose mean is ∇J but for its length counts as biased in direction",
        "estimators/facts.py",
        'self.unbiased_for == "J" or self.shrunk',
        'self.unbiased_for == "J"',
        "tests/benchmarks/test_leaderboard.py -k parallel",
    ),
    Mutant(
        "the Fisher matrix weighs states by γᵗ where the gradient does not",
        "estimators/episodic.py",
        "weigh, state_discount=1.0)",
        "weigh)",
        "tests/core/test_optimizers.py -k weighs_states",
    ),
    Mutant(
        "the Fisher matrix of a window is not per step",
        "optimizers/curvature.py",
        "damped(lambda v: _scaled(gradient_scale, product(v)), damping)",
        "damped(product, damping)",
        "tests/core/test_optimizers.py -k same_window_twice",
    ),
    Mutant(
        "small eigenvalues of the Fisher matrix count as 0",
        "optimizers/curvature.py",
        "min(10.0 * flat.size, 1e3)",
        "1e3",
        "tests/core/test_optimizers.py -k small_eigenvalues",
    ),
    Mutant(
        "a single seed has an interval",
        "reports/statistics.py",
        "if seeds < 2:",
        "if seeds < 1:",
        "tests/reports/test_statistics.py -k 'single_seed or have_a_value'",
    ),
    Mutant(
        "a point of a learning curve weighs updates alike, not episodes",
        "reports/curves.py",
        'metrics["return"] * metrics["episodes"], 0.0)',
        'metrics["return"], 0.0)',
        "tests/benchmarks/test_benchmark.py -k stored_curve",
    ),
    Mutant(
        "the mean curve leaves out a seed in which no episode ended",
        "reports/curves.py",
        "        pairs.append((np.asarray(x)[known], np.asarray(y)[known]))",
        "        if known.any():\n"
        "            pairs.append((np.asarray(x)[known], np.asarray(y)[known]))",
        "tests/benchmarks/test_benchmark.py -k mean_curve_is_of_all",
    ),
    Mutant(
        "metrics are read in the order of their rows, not by run",
        "runs/results.py",
        "rows[name][order].reshape(num_updates, num_runs).T",
        "rows[name].reshape(num_updates, num_runs).T",
        "tests/runs/test_results.py -k come_back_by_run",
    ),
    Mutant(
        "the means of a summary hold the seeds that failed",
        "runs/writing.py",
        "over_seeds = _over_seeds(columns, ~left_out[actions])",
        "over_seeds = _over_seeds(columns, left_out[actions] | True)",
        "tests/runs/test_results.py -k each_evaluation",
    ),
    Mutant(
        "a program of a benchmark is resumed as a run of train.py",
        "commands/job.py",
        '    folders.check_command(folder, "train.py")\n',
        "",
        "tests/benchmarks/test_benchmark.py -k neither_resumed",
    ),
    Mutant(
        "greedy and sampled returns of a benchmark are swapped",
        "benchmarks/learning.py",
        'scores = [row["greedy"]["mean"], row["mean"]]',
        'scores = [row["mean"], row["greedy"]["mean"]]',
        "tests/benchmarks/test_benchmark.py -k greedy_and_sampled",
    ),
    Mutant(
        "a sweep under former names is not found again",
        "sweep/spec.py",
        "if self._is_stored_in(path, search):",
        "if False:",
        "tests/runs/test_sweep.py -k sweep_of_before",
    ),
    Mutant(
        "arrays of a checkpoint of before keep their former names",
        "runs/checkpoints.py",
        "leaf_name(name) if written_as == 1 else name",
        "name",
        "tests/runs/test_checkpoints.py -k every_release",
    ),
    Mutant(
        "curves without steps in common are read off backwards",
        "reports/curves.py",
        "if begin > end:",
        "if False:",
        "tests/benchmarks/test_benchmark.py -k without_steps_in_common",
    ),
    Mutant(
        "a seed without a finished episode counts as 0 in the mean curve",
        "reports/statistics.py",
        "mean = _quotient(values.sum(axis=0), known.sum(axis=0))",
        "mean = values.mean(axis=0)",
        "tests/reports/test_statistics.py -k have_a_value",
    ),
    Mutant(
        "the learning rate's schedule counts the steps that were taken",
        "optimizers/__init__.py",
        "return lambda count: over_the_run(step)",
        "return over_the_run",
        "tests/core/test_train.py -k learning_rate_follows",
    ),
    Mutant(
        "a step that is overridden is passed by",
        "envs/interface.py",
        'if _is_own(env, "step", "step_env"):',
        'if not hasattr(type(env), "step_env"):',
        "tests/core/test_env_interface.py -k overridden",
    ),
    Mutant(
        "a reset that is overridden is passed by",
        "envs/interface.py",
        'env.reset if _is_own(env, "reset", "reset_env") else env.reset_env',
        "env.reset_env",
        "tests/core/test_env_interface.py -k overridden",
    ),
    Mutant(
        "a held action counts whole where its episode ends inside it",
        "envs/base.py",
        "return scan_keys(again, first, keys[1:])[0]",
        "return *scan_keys(again, first, keys[1:])[0][:-1], jnp.int32(times)",
        "tests/core/test_envs.py -k inside_a_held",
    ),
    Mutant(
        "what an environment keeps beyond its trace is not looked for",
        "envs/time_limit_checks.py",
        "if ends.outlives_trace and not is_tracing():",
        "if False:",
        "tests/core/test_env_tracing.py -k outlives_its_trace",
    ),
    Mutant(
        "letters of a text are observed as numbers",
        "envs/adapters/gymnasium.py",
        "    elif not isinstance(space, _FLAT):",
        "    elif False:",
        "tests/core/test_adapters.py -k refused_at_once",
    ),
    Mutant(
        "an environment is asked under other settings than those of the context",
        "envs/tracing.py",
        "if value != thread_settings[name]:",
        "if False:",
        "tests/core/test_env_tracing.py -k asked",
    ),
    Mutant(
        "a limit that nobody has set is taken where no step can be tried",
        "envs/time_limit_checks.py",
        "cannot be set\n        return EpisodeEnds(default_limit, None, None)",
        "cannot be set\n        return EpisodeEnds(False, None, None)",
        "tests/core/test_time_limits.py -k tried",
    ),
    Mutant(
        "what an environment keeps in a slot outlives the trace that made it",
        "envs/tracing.py",
        "if inspect.ismemberdescriptor(member):",
        "if False:",
        "tests/core/test_env_tracing.py -k slot",
    ),
    Mutant(
        "a state of floats is truncated to the whole numbers that it began as",
        "envs/step_checks.py",
        "if old.dtype != new.dtype and not _same_kind(old, new):",
        "if False:",
        "tests/core/test_env_interface.py -k truncated",
    ),
    Mutant(
        "episodes of a sweep are cut at the default time limit",
        "runs/execution.py",
        "longest = math.ceil(envs.longest_limit(limits) / config.action_repeat)",
        "longest = envs.configured(config, 1).horizon()",
        "tests/core/test_time_limits.py -k time_limit",
    ),
    Mutant(
        "a function of the host is that of the program compiled before",
        "runs/execution.py",
        "if _CALLS_PYTHON.search(text):",
        "if False:",
        "tests/core/test_programs.py -k host",
    ),
    Mutant(
        "parameters of the environment are Python's own, whose ~True is true",
        "envs/base.py",
        "params = as_arrays(stated_params)",
        "params = stated_params",
        "tests/core/test_env_parameters.py -k 'true_and_false'",
    ),
    Mutant(
        "actions of a Box of whole numbers are cut off",
        "envs/actions.py",
        "jnp.round(clipped).astype",
        "clipped.astype",
        "tests/core/test_env_spaces.py -k whole_numbers",
    ),
    Mutant(
        "actions of a Box of whole numbers arrive as floats",
        "envs/actions.py",
        "whole = not jnp.issubdtype(",
        "whole = False and jnp.issubdtype(",
        "tests/core/test_env_spaces.py -k whole_numbers",
    ),
    Mutant(
        "a bound of 1e38 is a bound",
        "envs/env_spaces.py",
        "UNBOUNDED = 1e9",
        "UNBOUNDED = np.inf",
        "tests/core/test_env_spaces.py -k beyond_any_use",
    ),
    Mutant(
        "Discrete actions of Gymnasium count from 0",
        "envs/actions.py",
        "lambda action: action + first if first else action",
        "lambda action: action",
        "tests/core/test_env_spaces.py -k spaces_and_names",
    ),
    Mutant(
        "nobody looks whether the time limit counts as an end",
        "envs/time_limit_checks.py",
        "at_the_limit = goes_on & (cut[1] | (cut[2] & ~terminated[3]))",
        "at_the_limit = goes_on & False",
        "tests/core/test_time_limits.py -k counts_as_an_end",
    ),
    Mutant(
        "an end of its own at a time is taken for the time limit",
        "envs/time_limit_checks.py",
        "(cut[1] | (cut[2] & ~terminated[3]))",
        "(cut[1] | cut[2])",
        "tests/core/test_time_limits.py -k of_its_own",
    ),
    Mutant(
        "gymnax's default limit of one step is taken",
        "envs/time_limit_checks.py",
        "if ends.default_limit and not is_overridden and not ends.at_once:",
        "if False:",
        "tests/core/test_time_limits.py -k must_be_meant",
    ),
    Mutant(
        "the steps of a minibatch are not shuffled",
        "train.py",
        "        return jax.random.permutation(key, things)\n",
        "        return jax.random.permutation(key, things) if config.minibatch_size is None else "
        "jnp.arange(things)\n",
        "tests/core/test_minibatches.py -k pass",
    ),
    Mutant(
        "a clip range that is to be annealed stays as it was",
        "train.py",
        ' or config.epsilon_schedule != "constant"',
        "",
        "tests/core/test_train.py -k annealed",
    ),
    Mutant(
        "the gradient of single steps is scaled as that of a window",
        "train.py",
        "scale = scale if config.minibatch_size is None else 1.0",
        "scale = scale",
        "tests/core/test_minibatches.py -k whole_batch",
    ),
    Mutant(
        "a held action goes on after the end",
        "envs/base.py",
        "lambda old, new: jnp.where(ended, old, new), before, after), None",
        "lambda old, new: new, before, after), None",
        "tests/core/test_envs.py -k held",
    ),
    Mutant(
        "a value may move beyond its range",
        "surrogates.py",
        "near = before + jnp.clip(value - before, -epsilon, epsilon)",
        "near = value",
        "tests/core/test_surrogates.py",
    ),
    Mutant(
        "a policy is evaluated in the default environment",
        "evaluate.py",
        "env = envs.configured(config, num_episodes, env_params)",
        "env = envs.configured(config, num_episodes)",
        "tests/runs/test_env_params.py",
    ),
    Mutant(
        "a sweep's settings are ranked in the default environment",
        "runs/execution.py",
        '"env_params": env_params}\n            return evaluate(',
        '"env_params": {}}\n            return evaluate(',
        "tests/runs/test_env_params.py",
    ),
    Mutant(
        "True among the numbers of a sweep is 1",
        "sweep/spec.py",
        "        envs.check_parameters(config.env, of_env)\n",
        "",
        "tests/runs/test_env_params.py -k announced",
    ),
    Mutant(
        "a run's folder without the traced parameters of its environment",
        "runs/folders.py",
        "    config, hyperparams = merge_env_params(config, hyperparams)\n",
        "",
        "tests/runs/test_env_params.py -k folder",
    ),
    # What is saved.
    Mutant(
        "a saved policy without its running statistics",
        "runs/acting.py",
        "env, normalisation.standardised(network, normaliser), params",
        "env, network._replace(unstandardised=False), params",
        "tests/runs/test_acting.py -k own_evaluation",
    ),
    Mutant(
        "a saved policy with the parameters of the first seed for every seed",
        "runs/acting.py",
        "index = 0 if seed is None else seed - begin",
        "index = 0",
        "tests/runs/test_acting.py -k own_evaluation",
    ),
    Mutant(
        "parameters that need running statistics act without them",
        "normalisation.py",
        "return network._replace(apply=apply, unstandardised=False)",
        "return network._replace(unstandardised=False)",
        "tests/runs/test_acting.py tests/core/test_normalisation.py",
    ),
    Mutant(
        "one recurrent cell for the observations of several episodes",
        "runs/acting.py",
        "        self._check_carry(carry, batch)\n",
        "",
        "tests/runs/test_acting.py -k as_many_episodes",
    ),
    Mutant(
        "a new file through a link that lies in its place",
        "runs/files.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK",
        "os.O_WRONLY | os.O_CREAT",
        "tests/runs/test_files.py -k through",
    ),
    Mutant(
        "a path respelled for a console that has not its letters",
        "runs/encoding.py",
        "in_path = path.start <= error.start",
        "in_path = False",
        "tests/runs/test_encoding.py -k names_and_paths",
    ),
    Mutant(
        "runs of another environment compared as pairs",
        "reports/comparison.py",
        "    if not all_shared or _environment(group) != _environment(baseline):\n",
        "    if not all_shared:\n",
        "tests/reports/test_comparison.py -k another_environment",
    ),
    Mutant(
        "a seed compared with another one's score in its pair",
        "reports/comparison.py",
        "return x[mine], y[others], True",
        "return x[: len(mine)], y[: len(others)], True",
        "tests/reports/test_comparison.py -k whatever_order",
    ),
    Mutant(
        "a comparison that counts a seed twice",
        "reports/comparison.py",
        "if not set(one.seeds) & set(group.seeds):",
        "if True:",
        "tests/reports/test_comparison.py -k counted_twice",
    ),
    Mutant(
        "a comparison without the seeds that did not reach the threshold",
        "reports/statistics.py",
        "    return Estimate(float(np.median(times)), float(low), float(high))\n",
        "    times = times[np.isfinite(times)]\n"
        "    return Estimate(float(np.median(times)), float(low), float(high))\n",
        "tests/reports/test_comparison.py -k threshold",
    ),
    Mutant(
        "a comparison that pools fresh seeds with those of the choice",
        "reports/comparison.py",
        "        if one.configuration is not None:\n            settings[_SOURCE]",
        "        if False:\n            settings[_SOURCE]",
        "tests/reports/test_comparison.py -k fresh",
    ),
    Mutant(
        "a table of runs with the settings of a sweep's first configuration",
        "runs/loading.py",
        "values = {name: column[g] for name, column",
        "values = {name: column[0] for name, column",
        "tests/runs/test_loading.py -k each_of_its",
    ),
    Mutant(
        "a device's sum for that of all",
        "fast/devices.py",
        "unravel(jax.lax.psum(flat, ENVS))",
        "unravel(flat)",
        "tests/core/test_devices.py -k shared_out",
    ),
    Mutant(
        "a file of settings goes before the flags",
        "commands/cli.py",
        "[*settings_files.words(file, kinds, given), *argv]",
        "[*argv, *settings_files.words(file, kinds, given)]",
        "tests/runs/test_settings_files.py -k preset_of_its",
    ),
    Mutant(
        "a preset fills up the settings of a run in a file",
        "commands/cli.py",
        "elif file and file.run:",
        "elif file and file.run is Ellipsis:",
        "tests/runs/test_settings_files.py -k complete",
    ),
    Mutant(
        "an evaluation again by the keys of the next seeds",
        "commands/evaluate.py",
        "range(first, first + len(seeds)),",
        "range(first + 1, first + 1 + len(seeds)),",
        "tests/runs/test_evaluate_command.py -k same",
    ),
    Mutant(
        "a folder records the commit of the project around the package",
        "runs/folders.py",
        'if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:',
        'if _git(file.parent, "ls-files", file.name) is None:',
        "tests/runs/test_console.py -k commit",
    ),
    # Evaluation while it trains.
    Mutant(
        "the best of several evaluations is judged by the episodes that selected it",
        "seeds.py",
        "return jax.random.split(jax.random.key(seed), 3)[2]",
        "return evaluation_key(seed)",
        "tests/runs/test_periodic.py -k keys",
    ),
    Mutant(
        "training ends where one seed of several has reached the return",
        "runs/periodic.py",
        "(scores[fine] >= target).all()",
        "(scores[fine] >= target).any()",
        "tests/runs/test_periodic.py -k ends",
    ),
    Mutant(
        "all seeds take their best parameters from the update that is best for one",
        "runs/periodic.py",
        "better = scores > before.score if before else",
        "better = np.full(len(scores), (scores > before.score).any()) if before else",
        "tests/runs/test_periodic.py -k best",
    ),
    Mutant(
        "a checkpoint forgets the best parameters so far",
        "runs/execution.py",
        'return fetched._asdict() | {"best": best} if best else fetched',
        "return fetched",
        "tests/runs/test_periodic.py -k killed",
    ),
    # The verdict on an estimator.
    Mutant(
        "the verdict calls a bias a note where unbiasedness is claimed",
        "diagnostics/verdict.py",
        'return Finding("mean", text, False, worst, EXACT)',
        'return Finding("mean", text, True, worst, EXACT)',
        "tests/runs/test_check.py -k claim",
    ),
    Mutant(
        "the verdict looks for a leak along a direction that moves no probability",
        "diagnostics/verdict.py",
        "jnp.asarray(g.normal(size=x.shape), x.dtype), params)",
        "jnp.ones_like(x), params)",
        "tests/exact/test_verdict.py -k 'gradient and weigh'",
    ),
    Mutant(
        "the verdict has no horizon longer than the longest episode",
        "diagnostics/verdict.py",
        "PADDING = 4  #",
        "PADDING = 0  #",
        "tests/exact/test_verdict.py -k 'mean and time'",
    ),
    Mutant(
        "the verdict holds every batch against the first state of the estimator",
        "diagnostics/verdict.py",
        "estimator = estimator._replace(init=lambda key: (params, state))",
        "pass",
        "tests/exact/test_verdict.py -k past",
    ),
    # Trackers.
    Mutant(
        "a tracker that fails ends the run",
        "trackers/base.py",
        "except (Exception, SystemExit) as error:",
        "except ArithmeticError as error:",
        "tests/runs/test_trackers.py -k given",
    ),
    Mutant(
        "a tracker is given updates again after a kill",
        "trackers/base.py",
        "max(0, given[name] - start) :",
        "0:",
        "tests/runs/test_trackers.py -k twice",
    ),
    Mutant(
        "a sample is exported as the mode",
        "runs/exporting.py",
        'if "key_data" in given else None',
        "if False else None",
        "tests/runs/test_exporting.py",
    ),
    Mutant(
        "an exported recurrent policy forgets where episodes begin",
        "runs/exporting.py",
        'given["carry"], seen, given["first"], _key',
        'given["carry"], seen, given["first"] & False, _key',
        "tests/runs/test_exporting.py",
    ),
    # Parts of one's own.
    Mutant(
        "a file that stored settings name is executed: an own part",
        "config.py",
        "if own_files.is_reference(data.get(name)):",
        "if False:",
        "tests/core/test_parts.py -k stored",
    ),
    Mutant(
        "an own part is resumed with another digest",
        "runs/code.py",
        'if before["sha256"] != now["sha256"]:',
        "if False:",
        "tests/runs/test_own_files.py -k recorded",
    ),
    Mutant(
        "an own part is resumed with another module beside its file",
        "runs/code.py",
        "if change.before != change.now:",
        "if False:",
        "tests/runs/test_own_files.py -k imports",
    ),
    Mutant(
        "what an own file imports in a function is not recorded",
        "settings/own_imports.py",
        "for node in ast.walk(tree):",
        "for node in tree.body:",
        "tests/runs/test_own_files.py -k imports",
    ),
    Mutant(
        "own files in different folders share modules of one name",
        "settings/own_imports.py",
        "if x.folder == file.parent and x.holds(texts)",
        "if True",
        "tests/core/test_parts.py -k beside",
    ),
    Mutant(
        "a part that an own file imports takes its source everywhere",
        "settings/own_files.py",
        "elif source.defined_in or id(found) in _sources:",
        "elif False:",
        "tests/core/test_parts.py -k described",
    ),
    Mutant(
        "an own part is known to a sweep by its name alone",
        "sweep/spec.py",
        '"sha256": code.digest(entry)}',
        '"sha256": ""}',
        "tests/runs/test_own_files.py -k digests",
    ),
    Mutant(
        "an own module remembers what was before its episode",
        "modules.py",
        "s, c), carry, start",
        "c, c), carry, start",
        "tests/core/test_modules.py -k sequence",
    ),
    Mutant(
        "an own initialiser by QR is batched over seeds",
        "networks.py",
        "if takes_qr(init):",
        "if False:",
        "tests/core/test_modules.py -k qr",
    ),
    Mutant(
        "an own critic [..., 1] is taken for one number",
        "network_checks.py",
        "if tuple(x.shape) != expected:",
        "if x.size != math.prod(expected):",
        "tests/core/test_parts.py -k 'width'",
    ),
    Mutant(
        "the action masks of named actions go by their order",
        "envs/actions.py",
        "names = sorted(spaces)",
        "names = list(spaces)",
        "tests/core/test_spaces.py -k names",
    ),
    Mutant(
        "a leaderboard goes on with the results of other code",
        "benchmarks/leaderboard/contenders.py",
        "out, field, entry, part, allow_changed_code=allow_changed_code",
        "out, field, entry, part, allow_changed_code=True",
        "tests/benchmarks/test_own_contenders.py -k stored_results",
    ),
    Mutant(
        "a leaderboard executes an own file before its code is compared",
        "benchmarks/leaderboard/contenders.py",
        "    estimators = [listed_name(x) or x for x in estimators]",
        "    estimators = [listed_name(x) or _loaded('estimator', x) for x in estimators]",
        "tests/benchmarks/test_own_contenders.py -k other_code_is_refused",
    ),
    Mutant(
        "a leaderboard of changed code leaves the results of the former",
        "benchmarks/leaderboard/measurements.py",
        "stored = _unchanged(Measurements.read(out), entered.changed)",
        "stored = Measurements.read(out)",
        "tests/benchmarks/test_own_contenders.py -k other_code_is_refused",
    ),
    Mutant(
        "an estimator of one's own is traced on the leaderboard once a policy is trained",
        "benchmarks/leaderboard/measurements.py",
        "if is_missing and not isinstance(estimator, str):",
        "if is_missing and isinstance(estimator, str):",
        "tests/benchmarks/test_own_contenders.py -k before_a_policy",
    ),
    Mutant(
        "policies that were trained without a part of one's own are taken for those with it",
        "benchmarks/leaderboard/contenders.py",
        "field not in recorded and holds_policies:",
        "field not in recorded and not holds_policies:",
        "tests/benchmarks/test_own_contenders.py -k folder_records",
    ),
    Mutant(
        "a number among stored parameters is read back as a vector",
        "runs/parameters.py",
        'np.asarray(leaf, order="C")',
        "np.ascontiguousarray(leaf)",
        "tests/benchmarks/test_leaderboard.py -k numbers_among",
    ),
]


def main(words: list[str]) -> int:
    """Plants every mutant whose description holds all words; the number of those that no test
    caught.
    """
    chosen = [m for m in MUTANTS if all(word in m.what for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pg", "tests", "experiments", "docs"):
            shutil.copytree(
                ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        for name in ("pyproject.toml", "README.md", "Makefile"):
            shutil.copy(ROOT / name, folder)
        for mutant in chosen:
            caught = catch(mutant, Path(folder))
            survivors += caught is None
            print(f"{mutant.what}: {caught or f'NOT CAUGHT by {mutant.tests}'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return min(survivors, 1)


def catch(mutant: Mutant, folder: Path) -> str | None:
    """The first test that fails with the mutant planted in the copy in `folder`; None if all
    pass.
    """
    path = folder / "pg" / mutant.path
    source = path.read_text()
    path.write_text(source.replace(mutant.old, mutant.new))
    words = re.findall(r"'[^']*'|\S+", mutant.tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        *(w.strip("'") for w in words),
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    path.write_text(source)
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"pytest did not run for {mutant.what!r}:\n{done.stdout}{done.stderr}")
    return found.group(1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
