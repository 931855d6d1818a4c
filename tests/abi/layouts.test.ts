/**
 * Everything that processes of different builds may share, as one text that is under review: who changes a layout changes
 * layouts.txt too, and is reminded of what goes with it.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { defaults } from '../../protocol/limits.js'
import { nodeFileLayouts } from '../../protocol/node-file.js'
import { queuePairGeometry, queuePairType } from '../../protocol/queue-pair-segment.js'
import {
  abiVersion,
  clientFacts,
  clientFingerprint,
  clientLayouts,
  linkVersion,
  nodeFileFacts,
  nodeFileFingerprint,
  wireFacts,
  wireFingerprint,
} from '../../protocol/version.js'
import { wireLayouts } from '../../protocol/wire.js'
import { ACTIVITY_BITS, activityLayout } from '../../shm/activity.js'
import { MAX_MEMBERS, ownerWord, WAITERS } from '../../shm/robust-lock.js'
import { packClaimed, packState, SLOT_STATE_NAMES } from '../../shm/slot-state.js'

const UPDATE = 'UPDATE_LAYOUTS'
const goldenFile = new URL('layouts.txt', import.meta.url)
const readme = new URL('../../protocol/README.md', import.meta.url)

const hexadecimal = (word: number): string => `0x${(word >>> 0).toString(16).padStart(8, '0')}`

/** One line for each fact: `path: value`, so that a change shows as a changed line. */
function lines(path: string, value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [`${path}: ${String(value)}`]
  if (Array.isArray(value) && value.every((one) => typeof one !== 'object')) return [`${path}: ${value.join(' ')}`]
  return Object.entries(value).flatMap(([name, one]) => lines(path === '' ? name : `${path}.${name}`, one))
}

const defaultQueuePair = {
  sendSlots: defaults.maxSend,
  receiveSlots: defaults.maxReceive,
  inlineByteLength: defaults.maxInline,
}

/** What shm packs into words; no fingerprint covers it. */
const words = {
  lock: { memberTwoGenerationThree: hexadecimal(ownerWord(2, 3)), waiters: hexadecimal(WAITERS), members: MAX_MEMBERS },
  slot: {
    states: SLOT_STATE_NAMES,
    doneGenerationThree: hexadecimal(packState(SLOT_STATE_NAMES.indexOf('done'), 3)),
    claimedByTwoGenerationThree: hexadecimal(packClaimed(2, 3)),
  },
  activity: { bits: ACTIVITY_BITS },
}

const section = (title: string, ...paragraphs: readonly string[]): string =>
  `## ${title}\n\n${paragraphs.join('\n\n')}\n`

const current = [
  section(
    'Versions',
    [
      `abi ${abiVersion}, link ${linkVersion.minimum} to ${linkVersion.maximum}`,
      `fingerprint of the client's side ${hexadecimal(clientFingerprint)}`,
      `fingerprint of the wire ${hexadecimal(wireFingerprint)}`,
      `fingerprint of the node file ${hexadecimal(nodeFileFingerprint)}`,
    ].join('\n'),
  ),
  section('Client and broker', ...clientLayouts.map((one) => one.describe()), lines('', clientFacts).join('\n')),
  section(
    'A queue pair as it is made by default',
    lines('', queuePairGeometry({ type: queuePairType.connected, ...defaultQueuePair })).join('\n'),
  ),
  section('Words of shared memory', activityLayout.describe(), lines('', words).join('\n')),
  section('Brokers, on lanes', ...wireLayouts.map((one) => one.describe()), lines('', wireFacts).join('\n')),
  section('Node file', ...nodeFileLayouts.map((one) => one.describe()), lines('', nodeFileFacts).join('\n')),
].join('\n')

test('what processes share is what layouts.txt says', (t) => {
  if (process.env[UPDATE]) writeFileSync(goldenFile, current)
  const before = readFileSync(goldenFile, 'utf8').split('\n')
  const now = current.split('\n')
  const different = [
    ...before.filter((line) => !now.includes(line)).map((line) => `- ${line}`),
    ...now.filter((line) => !before.includes(line)).map((line) => `+ ${line}`),
  ]
  t.true(
    current === before.join('\n'),
    [
      'A layout, number or meaning that processes of different builds share has changed.',
      'Raise abiVersion in protocol/version.ts (linkVersion for what only brokers exchange), unless that has not been',
      `released since the last change; then write the new table by ${UPDATE}=1 npx ava tests/abi/layouts.test.ts`,
      ...different,
    ].join('\n'),
  )
})

test('the tables that protocol/README.md prints are those of the sources', (t) => {
  const text = readFileSync(readme, 'utf8')
  const printed = [...clientLayouts, ...wireLayouts].filter((one) => text.includes(`\n${one.name} (`))
  t.true(printed.length >= 4)
  for (const one of printed) t.true(text.includes(`\n${one.describe()}\n`), `${one.name} is\n${one.describe()}`)
})
