#!/usr/bin/env node
/**
 * Starts the command line: what is built when there is nothing newer, else the sources through tsx. An installed package holds only what
 * is built; a fresh checkout holds only sources.
 */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'

const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url))
const built = pathOf('../.build/broker/main.js')
const source = pathOf('./main.ts')
const floors = ['../broker', '../client', '../protocol', '../shm'].map(pathOf)

/** Time of the last change in a folder and below; a deleted file shows in the time of its folder. */
function newestMs(path) {
  const { mtimeMs } = statSync(path)
  const inside = readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() || entry.name.endsWith('.ts'))
    .map((entry) =>
      entry.isDirectory() ? newestMs(`${path}/${entry.name}`) : statSync(`${path}/${entry.name}`).mtimeMs,
    )
  return Math.max(mtimeMs, ...inside)
}

const isBuilt = () =>
  existsSync(built) && (!existsSync(source) || statSync(built).mtimeMs >= Math.max(...floors.map(newestMs)))

/** Standard streams, and the descriptor on which readiness is to be told. */
function inherited() {
  const at = process.argv.indexOf('--ready-fd')
  const readyFd = at < 0 ? 0 : Number(process.argv[at + 1])
  if (!(readyFd >= 3 && readyFd < 1024)) return 'inherit'
  return ['inherit', 'inherit', 'inherit', ...Array(readyFd - 3).fill('ignore'), readyFd]
}

/** A new process, because the sources run only with a loader that every thread has from its start. */
function runSources() {
  const child = spawn(process.execPath, [`--import=${pathOf('./typescript.js')}`, source, ...process.argv.slice(2)], {
    stdio: inherited(),
  })
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGUSR2']) process.on(signal, () => child.kill(signal))
  // A terminal's Ctrl-C reaches both processes by itself, and a second one would cut the draining short.
  process.on('SIGINT', () => process.stdin.isTTY === true || child.kill('SIGINT'))
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? 128 + constants.signals[signal]
  })
}

if (isBuilt()) await import(built)
else runSources()
