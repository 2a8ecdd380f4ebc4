// JSON, sorting and recursion, for the CPU seconds that are given.
'use strict';

function fibonacci(n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

function work() {
  const rows = [];
  for (let i = 0; i < 500; i++) {
    rows.push({ name: String((i * 7919) % 1000), values: Array(i % 20).fill(i) });
  }
  rows.sort((a, b) => a.name.localeCompare(b.name));
  const words = JSON.stringify(rows).match(/"\d+"/g).length;
  return JSON.parse(JSON.stringify(rows)).length + words + fibonacci(16);
}

const end = Number(process.argv[2]) * 1e6;
for (;;) {
  const { user, system } = process.cpuUsage();
  if (user + system >= end) break;
  work();
}
