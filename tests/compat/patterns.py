"""What nnsight's documentation shows, on a tiny GPT-2 and a tiny Llama; each gives what it saved.

The code is that of users: nnsight runs it itself, and then through our backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nnsight
import torch
import torch.nn.functional as F
from nnsight import NNsight

Pattern = Callable[[Any], Any]
Refusal = tuple[Pattern, str]

PROMPT = "the cat sat on"
OTHER = "the dog ran far"
LONGER = "the dog sat on the mat"

GPT2: list[Pattern] = []
LLAMA: list[Pattern] = []
REFUSED: list[Refusal] = []


def gpt2(pattern: Pattern) -> Pattern:
    GPT2.append(pattern)
    return pattern


def llama(pattern: Pattern) -> Pattern:
    LLAMA.append(pattern)
    return pattern


def refused(because: str) -> Callable[[Pattern], Pattern]:
    """Of a pattern that a graph cannot express: what the error says, after the place."""

    def add(pattern: Pattern) -> Pattern:
        REFUSED.append((pattern, because))
        return pattern

    return add


@gpt2
def output_of_a_block(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.transformer.h[1].output.save()
    return hidden


@gpt2
def input_of_a_module(model: Any) -> Any:
    with model.trace(PROMPT):
        block = model.transformer.h[1].input.save()
        mlp = model.transformer.h[1].mlp.input.save()
    return block, mlp


@gpt2
def inputs_of_a_module(model: Any) -> Any:
    with model.trace(PROMPT):
        args, _ = model.transformer.h[1].mlp.inputs
        first = args[0].save()
    return first


@gpt2
def item_of_a_tuple(model: Any) -> Any:
    with model.trace(PROMPT):
        attention = model.transformer.h[0].attn.output[0].save()
        mixed, _ = model.transformer.h[1].attn.output
        last = mixed[:, -1].save()
    return attention, last


@gpt2
def zeros_in_place(model: Any) -> Any:
    with model.trace(PROMPT):
        model.transformer.h[0].output[:] = 0
        logits = model.lm_head.output.save()
    return logits


@gpt2
def one_position_in_place(model: Any) -> Any:
    with model.trace(PROMPT):
        model.transformer.h[0].attn.output[0][:, 1, 3:7] = 2.5
        model.transformer.h[1].output[:, -1, :] *= 2
        logits = model.output.logits.save()
    return logits


@gpt2
def input_in_place(model: Any) -> Any:
    with model.trace(PROMPT):
        model.transformer.h[1].mlp.input[:, 0] = 1
        logits = model.output.logits.save()
    return logits


@gpt2
def assigned_output(model: Any) -> Any:
    with model.trace(PROMPT):
        before = model.transformer.h[1].output
        model.transformer.h[1].output = before * 0.5 + 1
        after = model.transformer.h[1].output.save()
        kept = before.save()
        logits = model.output.logits.save()
    return kept, after, logits


@gpt2
def assigned_input(model: Any) -> Any:
    with model.trace(PROMPT):
        model.transformer.h[1].mlp.input = model.transformer.h[1].mlp.input - 1
        logits = model.output.logits.save()
    return logits


@gpt2
def assigned_tuple(model: Any) -> Any:
    with model.trace(PROMPT):
        attention = model.transformer.h[0].attn.output
        model.transformer.h[0].attn.output = (attention[0] * 3, *attention[1:])
        old = attention[0].save()
        logits = model.output.logits.save()
    return old, logits


@gpt2
def added_in_place(model: Any) -> Any:
    vector = torch.linspace(-1, 1, 16)
    with model.trace(PROMPT):
        model.transformer.h[0].output += 10 * vector
        logits = model.output.logits.save()
    return logits


@gpt2
def clone_before_a_change(model: Any) -> Any:
    with model.trace(PROMPT):
        before = model.transformer.h[0].output.clone().save()
        model.transformer.h[0].output[:] = 0
        after = model.transformer.h[0].output.save()
    return before, after


@gpt2
def saved_then_changed(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.transformer.h[0].output.save()
        hidden[:, 0] = 7
        logits = model.output.logits.save()
    return hidden, logits


@gpt2
def saved_by_the_function(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = nnsight.save(model.transformer.h[0].output)
        unsaved = model.transformer.h[1].output
    assert "unsaved" not in locals()
    return hidden


@gpt2
def list_of_layers(model: Any) -> Any:
    with model.trace(PROMPT):
        layers = nnsight.save([])
        for block in model.transformer.h:
            layers.append(block.output[:, -1])
    return layers


@gpt2
def list_from_outside(model: Any) -> Any:
    layers: list[Any] = []
    with model.trace(PROMPT):
        for i in range(3):
            layers.append(model.transformer.h[i].output.mean().save())
    return layers


@gpt2
def comprehension(model: Any) -> Any:
    with model.trace(PROMPT):
        norms = [block.output.norm(dim=-1) for block in model.transformer.h].save()
    return norms


@gpt2
def dictionary(model: Any) -> Any:
    with model.trace(PROMPT):
        found = {"embedding": model.transformer.wte.output, "blocks": {}}
        for i in range(len(model.transformer.h)):
            found["blocks"][i] = model.transformer.h[i].output[0, -1]
        nnsight.save(found)
    return found


@gpt2
def invokes(model: Any) -> Any:
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            one = model.transformer.h[-1].output[:, -1].save()
        with tracer.invoke(LONGER):
            two = model.transformer.h[-1].output[:, -1].save()
    return one, two


@gpt2
def transplant(model: Any) -> Any:
    with model.trace() as tracer:
        read = tracer.barrier(2)
        with tracer.invoke(PROMPT):
            clean = model.transformer.h[0].output[:, -1]
            read()
        with tracer.invoke(OTHER):
            read()
            model.transformer.h[0].output[:, -1] = clean
            patched = model.lm_head.output[:, -1].save()
    return patched


@gpt2
def barrier(model: Any) -> Any:
    with model.trace() as tracer:
        both = tracer.barrier(2)
        with tracer.invoke(OTHER):
            embedded = model.transformer.wte.output
            both()
            logits = model.lm_head.output.save()
        with tracer.invoke(PROMPT):
            both()
            model.transformer.wte.output = embedded
            same = model.lm_head.output.save()
    return logits, same


@gpt2
def patching_over_layers(model: Any) -> Any:
    scores = []
    with model.trace(PROMPT):
        clean = [block.output[:, -1].save() for block in model.transformer.h]
        nnsight.save(clean)
    for i, hidden in enumerate(clean):
        with model.trace(OTHER):
            model.transformer.h[i].output[:, -1] = hidden
            score = model.lm_head.output[0, -1, 5].save()
        scores.append(score)
    return scores


@gpt2
def invoke_without_a_prompt(model: Any) -> Any:
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            last = model.transformer.h[2].output.save()
        with tracer.invoke():
            first = model.transformer.h[0].output.save()
    return first, last


@gpt2
def logit_lens(model: Any) -> Any:
    with model.trace(PROMPT):
        tokens = []
        for block in model.transformer.h:
            logits = model.lm_head(model.transformer.ln_f(block.output))
            tokens.append(torch.softmax(logits, dim=-1).max(dim=-1).values.save())
        tokens = nnsight.save(tokens)
    return tokens


@gpt2
def torch_functions(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.transformer.h[0].output
        heads = hidden.view(1, hidden.shape[1], 2, -1).transpose(1, 2)
        scores = torch.einsum("bhqd,bhkd->bhqk", heads, heads)
        mask = torch.tril(torch.ones(4, 4)).bool()
        weights = torch.where(mask, scores, torch.tensor(-1e9)).softmax(-1).save()
        stacked = torch.stack([hidden.sum(0), hidden.mean(dim=0)]).save()
        joined = torch.cat([hidden, hidden.abs()], dim=-1).std(dim=-1).save()
        near = F.cosine_similarity(hidden[:, 0], hidden[:, 1], dim=-1).save()
        loss = F.cross_entropy(model.lm_head.output[0, :-1], torch.tensor([1, 2, 3])).save()
    return weights, stacked, joined, near, loss


@gpt2
def topk_of_logits(model: Any) -> Any:
    with model.trace(PROMPT):
        values, indices = model.lm_head.output[0, -1].topk(5)
        values.save()
        indices.save()
        both = model.lm_head.output[0, 0].topk(2).save()
    return values, indices, both.values, both.indices


@gpt2
def shapes(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.transformer.h[0].output
        shape = nnsight.save(tuple(hidden.shape))
        noise = torch.arange(hidden.shape[-1], device=hidden.device, dtype=hidden.dtype) / hidden.numel()
        model.transformer.h[0].output = hidden + noise.expand(hidden.size())
        positions = nnsight.save([row.norm() for row in hidden[0]])
        logits = model.output.logits.save()
    return list(shape), positions, logits


@gpt2
def gradient(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.transformer.h[1].output
        loss = model.output.logits.sum()
        with loss.backward():
            grad = hidden.grad.save()
    return grad


@gpt2
def gradients_of_layers(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = [block.output for block in model.transformer.h]
        with (model.output.logits[0, -1, 3] - model.output.logits[0, -1, 4]).backward():
            grads = nnsight.save([])
            for value in reversed(hidden):
                grads.append(value.grad * value)
    return grads


@gpt2
def generated_tokens(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=4, min_new_tokens=4) as tracer:
        ids = tracer.result.save()
    return ids


@gpt2
def steps(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=4, min_new_tokens=4) as tracer:
        tokens = nnsight.save([])
        for _ in tracer.iter[:4]:
            tokens.append(model.lm_head.output[0, -1].argmax(dim=-1))
    return tokens


@gpt2
def steps_without_an_end(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3) as tracer:
        hidden = nnsight.save([])
        for _ in tracer.iter[:]:
            hidden.append(model.transformer.h[1].output[:, -1])
    return hidden


@gpt2
def all_steps(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3) as tracer:
        logits = nnsight.save([])
        for step in tracer.all():
            model.transformer.h[1].output[:, -1] += step
            logits.append(model.lm_head.output[:, -1])
    return logits


@gpt2
def some_steps(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=5, min_new_tokens=5) as tracer:
        found = nnsight.save([])
        for step in tracer.iter[[0, 2]]:
            found.append(model.transformer.h[0].output[:, -1] + step)
        for _ in tracer.iter[3]:
            model.transformer.h[0].output[:] = 0
            found.append(model.lm_head.output[:, -1])
    return found


@gpt2
def steps_in_a_with_block(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3) as tracer:
        found = nnsight.save([])
        with tracer.iter[1:3]:
            found.append(model.transformer.h[0].output[:, -1])
    return found


@gpt2
def generations_of_invokes(model: Any) -> Any:
    with model.generate(max_new_tokens=3, min_new_tokens=3) as tracer:
        with tracer.invoke(PROMPT):
            one = tracer.result.save()
        with tracer.invoke(OTHER):
            model.transformer.h[0].output[:, -1] = 0
            two = tracer.result.save()
    return one, two


@gpt2
def generation_that_ends_early(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=6, min_new_tokens=6) as tracer:
        ids = tracer.result.save()
    end = next(int(token) for i, token in enumerate(ids[0, 4:]) if i > 0 and token not in ids[0, 4 : 4 + i])
    with model.generate(PROMPT, max_new_tokens=6, eos_token_id=end) as tracer:
        hidden = nnsight.save([])
        result = tracer.result.save()
    with model.generate(PROMPT, max_new_tokens=6, eos_token_id=end) as tracer:
        hidden = nnsight.save([])
        for step in tracer.iter[:]:
            model.transformer.h[1].output[:, -1] *= 1
            hidden.append(model.transformer.h[2].output[:, -1] + step)
            last = model.transformer.h[2].output[:, -1].save()
    assert 1 < len(hidden) < 6
    assert "last" not in locals() or last.shape == hidden[0].shape
    return result, hidden


@gpt2
def stopped(model: Any) -> Any:
    with model.trace(PROMPT) as tracer:
        hidden = model.transformer.h[0].output.save()
        tracer.stop()
    return hidden


@gpt2
def skipped(model: Any) -> Any:
    with model.trace(PROMPT):
        model.transformer.h[1].skip(model.transformer.h[1].input)
        logits = model.output.logits.save()
    return logits


@gpt2
def skipped_mlp(model: Any) -> Any:
    with model.trace(PROMPT):
        mlp = model.transformer.h[1].mlp
        mlp.skip(torch.zeros(1, 4, 16))
        hidden = model.transformer.h[2].output.save()
    return hidden


@gpt2
def cache_of_modules(model: Any) -> Any:
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[0], model.transformer.h[1].mlp], include_inputs=True)
        model.transformer.h[0].output[:, 1] = 0
    block, mlp = cache["model.transformer.h.0"], cache.transformer.h[1].mlp
    return block.output, block.input, mlp.output, mlp.inputs[0][0], sorted(cache.keys())


@gpt2
def cache_until_a_stop(model: Any) -> Any:
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[0]])
        hidden = model.transformer.h[1].output.save()
        tracer.stop()
    return cache["model.transformer.h.0"].output, hidden


@gpt2
def cache_of_everything(model: Any) -> Any:
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache()
    return [cache[f"model.transformer.h.{i}"].output for i in range(3)], cache.model.transformer.ln_f.output


@gpt2
def cache_of_steps(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3) as tracer:
        cache = tracer.cache(modules=["model.transformer.h.2"], dtype=torch.float64)
    return cache["model.transformer.h.2"].output


@gpt2
def session(model: Any) -> Any:
    with model.session():
        with model.trace(PROMPT):
            hidden = model.transformer.h[1].output[:, -1]
        with model.trace(OTHER):
            model.transformer.h[1].output[:, -1] = hidden
            logits = model.output.logits.save()
        doubled = (hidden * 2).save()
    return logits, doubled


@gpt2
def session_with_a_loop(model: Any) -> Any:
    with model.session():
        scores = nnsight.save([])
        with model.trace(PROMPT):
            clean = [block.output[:, -1] for block in model.transformer.h]
        for i in range(3):
            with model.trace(OTHER):
                model.transformer.h[i].output[:, -1] = clean[i]
                scores.append(model.lm_head.output[0, -1, 5])
    return scores


@gpt2
def edited_copy(model: Any) -> Any:
    with model.edit() as (_, edited):
        edited.transformer.h[1].output[:, -1] = 0
    with edited.trace(PROMPT):
        changed = edited.output.logits.save()
    with model.trace(PROMPT):
        clean = model.output.logits.save()
    return changed, clean


@gpt2
def edited_at_every_step(model: Any) -> Any:
    with model.edit(inplace=True) as tracer:
        for _ in tracer.iter[:]:
            model.transformer.h[1].output[:, -1] += 1
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3) as tracer:
        ids = tracer.result.save()
    model.clear_edits()
    return ids


@gpt2
def result_of_a_trace(model: Any) -> Any:
    with model.trace(PROMPT) as tracer:
        logits = tracer.result.logits.save()
    return logits


@gpt2
def whole_output(model: Any) -> Any:
    with model.trace(PROMPT):
        out = model.output.save()
    return out.logits, out["logits"], out[0]


@gpt2
def logits_in_place(model: Any) -> Any:
    with model.generate(PROMPT, max_new_tokens=2, min_new_tokens=2) as tracer:
        model.output.logits[:, :, 7] = 100
        ids = tracer.result.save()
    return ids


@gpt2
def weights(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.transformer.h[0].output
        projected = (hidden @ model.transformer.h[0].mlp.c_fc.weight).save()
        scores = F.linear(hidden[0, -1], model.lm_head.weight).save()
        transposed = (model.transformer.wpe.weight[:4] @ model.lm_head.weight.T).save()
    return projected, scores, transposed


@gpt2
def module_by_path(model: Any) -> Any:
    with model.trace(PROMPT):
        hidden = model.get("transformer.h.0.mlp.output").save()
    return hidden


@gpt2
def functions_of_ones_own(model: Any) -> Any:
    block = model.transformer.h[1]

    def lens(value: Any) -> Any:
        return model.lm_head(model.transformer.ln_f(value))

    def ablate(module: Any, position: int) -> None:
        module.output[:, position] = module.output.mean(dim=1)

    with model.trace(PROMPT):
        ablate(block, 2)
        scale = lambda value: value / value.norm()
        logits = scale(lens(block.output)).save()
    return logits


@gpt2
def module_of_ones_own(model: Any) -> Any:
    torch.manual_seed(1)
    coder = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    with model.trace(PROMPT), torch.no_grad():
        model.transformer.h[1].output[:] = coder(model.transformer.h[1].output)
        logits = model.output.logits.save()
    return logits


@gpt2
def prompt_of_ids(model: Any) -> Any:
    with model.trace([0, 1, 2, 3]):
        one = model.transformer.h[2].output.save()
    with model.trace(torch.tensor([[0, 1, 2, 3]])):
        two = model.transformer.h[2].output.save()
    with model.trace(input_ids=torch.tensor([[0, 1, 2, 3]]), attention_mask=torch.ones(1, 4)):
        three = model.transformer.h[2].output.save()
    return one, two, three


@gpt2
def encoding(model: Any) -> Any:
    with model.trace(model.tokenizer(PROMPT, return_tensors="pt")):
        hidden = model.transformer.h[2].output.save()
    return hidden


@gpt2
def nothing_but_python(model: Any) -> Any:
    with model.trace(PROMPT):
        answer = nnsight.save([len(model.transformer.h), 6 * 7])
    return answer


@gpt2
def attention_pattern(model: Any) -> Any:
    with model.trace(PROMPT):
        taken, _ = model.transformer.h[1].attn.source.attention_interface_1.inputs
        query = taken[1].save()
        heads, pattern = model.transformer.h[1].attn.source.attention_interface_1.output
        heads.save()
        pattern.save()
    return query, heads, pattern


@gpt2
def one_head_left_out(model: Any) -> Any:
    with model.trace(PROMPT):
        model.transformer.h[1].attn.source.attention_interface_1.output[0][:, :, 1] = 0
        logits = model.output.logits.save()
    return logits


@llama
def llama_sites(model: Any) -> Any:
    with model.trace(PROMPT):
        embedded = model.model.embed_tokens.output.save()
        attention = model.model.layers[0].self_attn.output[0].save()
        gate = model.model.layers[0].mlp.act_fn.output.save()
        hidden = model.model.layers[-1].output.save()
        logits = model.lm_head(model.model.norm(hidden)).save()
    return embedded, attention, gate, hidden, logits


@llama
def llama_ablation(model: Any) -> Any:
    with model.trace(PROMPT):
        model.model.layers[0].mlp.down_proj.input[..., :8] = 0
        model.model.layers[1].self_attn.output[0][:, -1] = 0
        logits = model.output.logits.save()
    return logits


@llama
def llama_steering(model: Any) -> Any:
    direction = torch.linspace(-2, 2, 16)
    with model.generate(PROMPT, max_new_tokens=4, min_new_tokens=4) as tracer:
        for _ in tracer.iter[:4]:
            model.model.layers[0].output += direction
        ids = tracer.result.save()
    return ids


@llama
def llama_gradient(model: Any) -> Any:
    with model.trace(PROMPT):
        queries = model.model.layers[1].self_attn.q_proj.output
        logits = model.lm_head.output[0, -1]
        with logits.log_softmax(-1)[3].backward():
            attribution = (queries * queries.grad).sum(-1).save()
    return attribution


@llama
def llama_rank_of_a_token(model: Any) -> Any:
    with model.trace() as tracer:
        ranks = nnsight.save([])
        for prompt in (PROMPT, OTHER):
            with tracer.invoke(prompt):
                logits = model.lm_head.output[0, -1]
                ranks.append((logits > logits[4]).sum())
    return ranks


@llama
def llama_as_a_plain_module(model: Any) -> Any:
    with model.trace(torch.tensor([[0, 1, 2, 3]])):
        hidden = model.model.layers[1].output.save()
        model.lm_head.output[:] = model.lm_head.output.softmax(-1)
        probabilities = model.output.logits.save()
    return hidden, probabilities


PLAIN = {llama_as_a_plain_module: NNsight}
"""Patterns of models that are wrapped by another class than nnsight's for language models."""


@refused("`if`, `while`, `and`, `or` and `not` need to know a value now")
def branch(model: Any) -> None:
    with model.trace(PROMPT):
        if model.transformer.h[0].output.sum() > 0:
            model.transformer.h[1].output[:] = 0


@refused(".item is not known while an experiment is recorded")
def number(model: Any) -> None:
    with model.trace(PROMPT):
        nnsight.save(model.transformer.h[0].output.sum().item())


@refused("'linalg_svd' is no operation of a graph")
def unknown_function(model: Any) -> None:
    with model.trace(PROMPT):
        torch.linalg.svd(model.transformer.h[0].output).save()


@refused("this invoke has 2 prompts, and a run has one")
def batch(model: Any) -> None:
    with model.trace([PROMPT, OTHER]):
        model.transformer.h[0].output.save()


@refused("an invoke without a prompt is about the whole batch, and runs have none in common")
def whole_batch(model: Any) -> None:
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            model.transformer.h[0].output.save()
        with tracer.invoke(OTHER):
            model.transformer.h[0].output.save()
        with tracer.invoke():
            model.transformer.h[0].output.save()


@refused("model.transformer.h.0.attn.source.split_0.output is no site of a graph")
def inside_of_a_forward(model: Any) -> None:
    with model.trace(PROMPT):
        model.transformer.h[0].attn.source.split_0.output.save()


@refused("the module's input 'attention_mask' is no site")
def keyword_input(model: Any) -> None:
    with model.trace(PROMPT):
        _, given = model.transformer.h[0].attn.inputs
        given["attention_mask"].save()


@refused("a gradient cannot be replaced on its way")
def gradient_replaced(model: Any) -> None:
    with model.trace(PROMPT):
        hidden = model.transformer.h[0].output
        with model.output.logits.sum().backward():
            hidden.grad = hidden.grad * 2


@refused("only what was read at a site has a gradient")
def gradient_of_a_result(model: Any) -> None:
    with model.trace(PROMPT):
        hidden = model.transformer.h[0].output * 2
        with model.output.logits.sum().backward():
            hidden.grad.save()


@refused("model.pipe cannot be recorded")
def pipeline(model: Any) -> None:
    with model.pipe(PROMPT, max_new_tokens=2) as tracer:
        tracer.result.save()


@refused("num_beams=2 cannot be generated with")
def beams(model: Any) -> None:
    with model.generate(PROMPT, max_new_tokens=2, num_beams=2) as tracer:
        tracer.result.save()


@refused("how many tokens?")
def generation_of_any_length(model: Any) -> None:
    with model.generate(PROMPT) as tracer:
        tracer.result.save()


@refused("a forward pass takes no 'output_hidden_states' here")
def forward_option(model: Any) -> None:
    with model.trace(PROMPT, output_hidden_states=True):
        model.output.hidden_states[0].save()


@refused("the model's output has no 'past_key_values' here")
def keys_and_values(model: Any) -> None:
    with model.trace(PROMPT):
        nnsight.save(model.output.past_key_values)


@refused("model.transformer is a part of a model, and only models are run")
def part_of_a_model(model: Any) -> None:
    with model.transformer.trace(torch.tensor([[0, 1]]), backend=model.backend):
        model.transformer.h[0].output.save()


@refused("transformer.h.1.attn.output is 2 values")
def too_few_values(model: Any) -> None:
    with model.trace(PROMPT):
        model.transformer.h[1].attn.output = (model.transformer.h[1].attn.output[0],)


@refused("model.generator.streamer.output is no site of a graph")
def streamed_tokens(model: Any) -> None:
    with model.generate(PROMPT, max_new_tokens=2) as tracer:
        for _ in tracer.iter[:2]:
            model.generator.streamer.output.save()


@refused("a tensor of your own cannot be changed by a recorded value")
def own_tensor_changed(model: Any) -> None:
    own = torch.zeros(4, 16)
    with model.trace(PROMPT):
        own[:] = model.transformer.h[0].output[0]


@refused("numpy needs to know a value now")
def library(model: Any) -> None:
    import numpy as np

    with model.trace(PROMPT):
        np.linalg.norm(model.transformer.h[0].output)
