// BullMQ's side of the benchmark: the client (`submit`, `probe`) and the worker, as the README's protocol has them.
//
// Settings: ioredis, BullMQ's documented client (its auto-pipelining made the drain slower, node-redis made no difference);
// concurrency 100; jobs removed on completion; addBulk for bulk submits.

import { Queue, Worker } from 'bullmq';
import IORedis from 'ioredis';
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const QUEUE = 'bench';
const STANDARD_OUTPUT = 1;

function connect() {
  const url = process.env.REDIS_URL;
  // ioredis takes a socket as a bare path. A worker's connection must retry for ever: BullMQ asks for it.
  return new IORedis(url.startsWith('unix://') ? url.slice('unix://'.length) : url, { maxRetriesPerRequest: null });
}

function openQueue() {
  return new Queue(QUEUE, { connection: connect(), defaultJobOptions: { removeOnComplete: true } });
}

function say(text) {
  writeSync(STANDARD_OUTPUT, `${text}\n`);
}

// CLOCK_MONOTONIC, the clock of Python's time.monotonic_ns.
function now() {
  return process.hrtime.bigint();
}

async function submit(count, batch, payloadBytes) {
  const queue = openQueue();
  await queue.waitUntilReady();
  const data = { blob: 'x'.repeat(payloadBytes - '{"blob":""}'.length) };
  const start = now();
  for (let left = count; left > 0; left -= batch) {
    const jobs = Array.from({ length: Math.min(batch, left) }, () => ({ name: 'noop', data }));
    await queue.addBulk(jobs);
  }
  say(JSON.stringify({ jobs: count, seconds: Number(now() - start) / 1e9 }));
}

async function probe(samples, gapLowMs, gapHighMs) {
  const queue = openQueue();
  await queue.waitUntilReady();
  const sent = [];
  for (let sequence = 0; sequence < samples; sequence += 1) {
    await sleep(gapLowMs + Math.random() * (gapHighMs - gapLowMs));
    sent.push(Number(now()));
    await queue.add('stamp', { sequence });
  }
  say(JSON.stringify({ sent }));
}

async function work(concurrency) {
  const handle = async (job) => {
    if (job.name === 'stamp') {
      const moment = now();
      say(`ran ${job.data.sequence} ${moment}`);
    }
  };
  const worker = new Worker(QUEUE, handle, { connection: connect(), concurrency, removeOnComplete: { count: 0 } });
  await worker.waitUntilReady();
  say('ready');
  await new Promise(() => {});
}

const programs = { submit, probe, worker: work };
const [name, ...numbers] = process.argv.slice(2);
await programs[name](...numbers.map(Number));
process.exit(0);
