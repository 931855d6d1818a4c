/**
 * Who holds the robust locks of queue pairs. The lock words lie in segments that only the broker and its clients map, so they are read
 * through /proc/<pid>/fd of a process that has the segment open: this works for a hung broker, and for a dead one as long as a
 * client lives. Needs the right to look into that process (same user, or root).
 */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { queuePairHeader, queuePairMagic } from '../../protocol/queue-pair-segment.js'
import { Memory } from '../../shm/memory.js'
import { FREE, ownerGeneration, ownerMember, WAITERS } from '../../shm/robust-lock.js'
import { type InspectRow, membersByNumber } from './inspect-row.js'
import type { NodeFileSnapshot, Row } from './node-file-reader.js'

interface LockWords {
  readonly send: number
  readonly receive: number
}

export function inspectLocks(snapshot: NodeFileSnapshot): InspectRow[] {
  const queuePairs = snapshot.rows('queuePairs')
  const readers = segmentPaths(snapshot, new Set(queuePairs.map((row) => row.segmentInode)))
  const members = membersByNumber(snapshot)
  const held: InspectRow[] = []
  let unreadable = 0
  for (const row of queuePairs) {
    const words = readLocks(readers.get(row.segmentInode), row)
    if (words === undefined) unreadable++
    else held.push(...heldLocks(row, words, members))
  }
  const counters = snapshot.counters()
  const summary = {
    queuePairs: queuePairs.length,
    held: held.length,
    unreadable,
    reclaimed: counters['locks-reclaimed'],
    slotsSwept: counters['slots-swept'],
  }
  return [...held, { noun: 'locks', fields: summary }]
}

function heldLocks(row: Row<'queuePairs'>, words: LockWords, members: Map<string, Row<'members'>>): InspectRow[] {
  return Object.entries(words)
    .filter(([, word]) => word !== FREE)
    .map(([side, word]) => {
      const number = ownerMember(word)
      const member = members.get(`${row.job}/${number}`)
      // Member 0 is the broker, which holds a lock only while it repairs one.
      const comm = number === 0 ? 'broker' : (member?.name ?? 'nobody')
      return {
        noun: 'lock',
        fields: {
          qp: row.index,
          side,
          member: number,
          generation: ownerGeneration(word),
          pid: member?.processId ?? null,
          comm,
          waiters: (word & WAITERS) !== 0,
        },
      }
    })
}

/** For each segment a path through which it can be opened. */
function segmentPaths(snapshot: NodeFileSnapshot, inodes: ReadonlySet<number>): Map<number, string> {
  const paths = new Map<number, string>()
  const processIds = [snapshot.header.processId, ...snapshot.rows('members').map((row) => row.processId)]
  for (const processId of new Set(processIds)) {
    if (paths.size === inodes.size) break
    for (const path of descriptorPaths(processId)) {
      const inode = inodeOf(path)
      if (inode !== undefined && inodes.has(inode) && !paths.has(inode)) paths.set(inode, path)
    }
  }
  return paths
}

function descriptorPaths(processId: number): string[] {
  const directory = `/proc/${processId}/fd`
  try {
    return readdirSync(directory).map((name) => `${directory}/${name}`)
  } catch {
    return []
  }
}

function inodeOf(path: string): number | undefined {
  try {
    const found = statSync(path)
    return found.isFile() ? found.ino : undefined
  } catch {
    return undefined
  }
}

/** The bytes are anybody's: whoever shares the segment may have written them. They are shown, and nothing depends on them. */
function readLocks(path: string | undefined, row: Row<'queuePairs'>): LockWords | undefined {
  if (path === undefined) return undefined
  const buffer = new ArrayBuffer(queuePairHeader.byteLength)
  try {
    const fd = openSync(path, 'r')
    try {
      readSync(fd, new Uint8Array(buffer), 0, buffer.byteLength, 0)
    } finally {
      closeSync(fd)
    }
  } catch {
    return undefined
  }
  const header = queuePairHeader.read(new Memory(buffer), 0)
  if (header.magic !== queuePairMagic || header.number !== row.index) return undefined
  return { send: header.sendLock, receive: header.receiveLock }
}
