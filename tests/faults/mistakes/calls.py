"""Mistakes before and after the ledger: what is held for a call, what its answer is booked at, who hangs up."""

from tests.faults.mistakes import Mistake

_CEILING, _PRICE, _USAGE = (f"tests/unit/pricing/test_{name}.py" for name in ("ceiling", "price", "usage"))
_UNARY, _STREAMS = (f"tests/integration/generation/test_{name}.py" for name in ("unary", "streams"))

MISTAKES = (
    Mistake(
        "usage 0 is treated as missing",
        "pricing/usage.py",
        "if not any(name in report for name in _COUNTS):",
        "if not any(report.get(name) for name in _COUNTS):",
        f"{_USAGE}::test_usage_of_zero_is_zero_and_not_missing",
    ),
    Mistake(
        "missing usage costs 0",
        "pricing/usage.py",
        """raise UsageMissing(detail="the answer reports no token counts")""",
        "return Usage()",
        f"{_USAGE}::test_usage_without_any_count_is_missing",
    ),
    Mistake(
        "cached tokens are charged twice",
        "pricing/price.py",
        "fresh = getattr(sent, modality) - cached + getattr(tool_use, modality)",
        "fresh = getattr(sent, modality) + getattr(tool_use, modality)",
        f"{_PRICE}::test_cached_tokens_are_charged_once_at_the_cached_price",
    ),
    Mistake(
        "cached tokens are ignored",
        "pricing/price.py",
        "        if cached:\n            yield cached_sku, cached\n",
        "",
        f"{_PRICE}::test_cached_tokens_are_charged_once_at_the_cached_price",
    ),
    Mistake(
        "a model without a price costs nothing",
        "pricing/price.py",
        "        if dearest is None:\n            raise ModelUnpriced",
        "        if dearest is None:\n            return name or INPUT\n            raise ModelUnpriced",
        _PRICE,
    ),
    Mistake(
        "no reservation where there is no price",
        "pricing/ceiling.py",
        "            raise ModelUnpriced(model=self.prices.model, sku=sku)\n",
        "            return 0\n",
        f"{_CEILING}::test_a_medium_without_a_price_is_refused",
    ),
    Mistake(
        "a long prompt is held at the price of short ones",
        "pricing/ceiling.py",
        "nanos = max(nanos, self.prices.nanos(sku + LONG) or 0)",
        "nanos = max(nanos, 0)",
        f"{_CEILING}::test_a_prompt_that_may_be_long_is_held_at_the_long_price",
    ),
    Mistake(
        "a call is held at the base tier's price",
        "pricing/ceiling.py",
        "self._permille = max(STANDARD_PERMILLE, dearest_permille(prices) if factor is None else factor)",
        "self._permille = STANDARD_PERMILLE",
        f"{_CEILING}::test_a_priority_call_is_held_at_the_priority_price",
    ),
    Mistake(
        "only one candidate is held for",
        "pricing/ceiling.py",
        'candidates = min(max(1, _whole(config, "candidateCount", "candidate_count")), _MOST_CANDIDATES)',
        "candidates = 1",
        f"{_CEILING}::test_every_candidate_may_use_the_whole_output",
    ),
    Mistake(
        "image tokens are priced as text",
        "pricing/usage.py",
        'return Tokens(image=_count(report, "candidatesTokenCount"))',
        'return Tokens(text=_count(report, "candidatesTokenCount"))',
        f"{_USAGE}::test_the_tokens_of_an_answer_with_images_and_no_details_are_image_tokens",
    ),
    Mistake(
        "a batch costs nothing",
        "pricing/price.py",
        "tier = BATCH if service_tier == BATCH else",
        "tier = STANDARD if service_tier == BATCH else",
        f"{_PRICE}::test_a_batch_is_half_price_and_not_free",
    ),
    Mistake(
        "an answer without usage is booked at nothing",
        "generation/generate.py",
        'attempt.unknown("USAGE_MISSING")',
        'attempt.refused("USAGE_MISSING")',
        f"{_UNARY}::test_an_answer_without_usage_goes_to_suspense_and_says_so",
    ),
    Mistake(
        "a call of unknown outcome is released",
        "generation/attempts.py",
        'self.unknown(f"BROKEN:{error}"[:100])',
        "self.settlement = NOT_SENT",
        f"{_UNARY}::test_a_call_of_unknown_outcome_ends_in_suspense_and_is_never_sent_again",
    ),
    Mistake(
        "a call that a shutdown interrupts is released",
        "generation/attempts.py",
        'or self.ledger.suspension(self.reservation, "INTERRUPTED")',
        "or NOT_SENT",
        f"{_UNARY}::test_a_drain_suspends_the_call_that_does_not_end",
    ),
    Mistake(
        "a client who hangs up loses the usage",
        "generation/detached.py",
        "        self._tasks.add(self._group.create_task(self._carry(call, result, notes)))\n        return result",
        """        task = self._group.create_task(self._carry(call, result, notes))
        self._tasks.add(task)
        result.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)
        return result""",
        f"{_UNARY}::test_a_caller_who_hangs_up_does_not_stop_the_settlement",
    ),
    Mistake(
        "a shutdown does not wait for calls in flight",
        "generation/detached.py",
        "await asyncio.wait(self._tasks, timeout=timeout_seconds)",
        "await asyncio.wait(self._tasks, timeout=0)",
        f"{_UNARY}::test_a_drain_waits_for_the_call_that_ends_in_time",
    ),
    Mistake(
        "the request id is claimed by no attempt",
        "generation/generate.py",
        "is_first=not way.is_claimed)",
        "is_first=way.is_claimed)",
        f"{_UNARY}::test_a_request_id_that_was_served_is_not_sent_again",
    ),
    Mistake(
        "a stream that breaks off is settled at what was seen of it",
        "generation/streaming.py",
        '            raise Broken("the stream ended before the answer did")\n',
        "            pass\n",
        f"{_STREAMS}::test_a_stream_that_ends_orderly_without_an_end_is_suspended",
    ),
)
