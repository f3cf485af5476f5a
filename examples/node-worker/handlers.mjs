// What the worker does: a function a type, from payload and job to the result. These are those of the conformance suite.
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export const handlers = {
  "conformance.echo": (payload) => payload,
  "conformance.big": ({ bytes }) => "x".repeat(bytes),
  "conformance.fail": ({ times, reason, final }, job) => {
    if (job.attempt <= times) throw Object.assign(new Error("as asked"), { reason, isFinal: final });
  },
  "conformance.progress": async ({ seconds }, job) => {
    job.report({ progress: { fraction: 0.5, message: "half" } });
    job.report({ log: { level: "warning", message: "half is done" } });
    job.report({ output: { data: Buffer.from("a chunk") } });
    await sleep(seconds * 1000, null, { signal: job.signal });
  },
  "conformance.slow": async ({ seconds, file }, job) => {
    const note = (word) => appendFileSync(file, `${word} ${job.id} ${job.attempt}\n`);
    note("begin");
    await sleep(seconds * 1000, null, { signal: job.signal }).finally(() => note(job.signal.aborted ? "cancelled" : "end"));
  },
};
