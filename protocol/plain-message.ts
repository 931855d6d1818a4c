/**
 * Looks over a msgpack message before any decoder does. What passes is one plain value: nil, booleans, numbers, well-formed text,
 * arrays, maps with text as keys. Refused: extension types (a decoder makes dates, regular expressions, errors, cycles and generated
 * code of them), binary, integers that no number holds, lengths beyond the message, deep nesting, bytes left over.
 *
 * One pass over the heads, nothing allocated for what a length promises, no recursion: a hostile message costs what its bytes cost.
 */
import { isUtf8 } from 'node:buffer'

/** Deepest nesting of arrays and maps; messages of this protocol need five. */
export const plainMessageDepth = 16

/** Why `bytes` are not exactly one plain value; null when they are. Says where, never what. */
export function plainMessageFault(bytes: Uint8Array): string | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const open = new OpenContainers()
  let at = 0
  do {
    const head = readHead(view, at)
    if (typeof head === 'string') return `${head} at byte ${at}`
    if (open.keyIsNext && head.kind !== 'text') return `a key that is no text at byte ${at}`
    const start = at + head.byteLength
    const left = bytes.byteLength - start
    if (head.count > left) return `a length beyond the message at byte ${at}`
    at = start
    open.took()
    if (head.kind === 'text') {
      at += head.count
      if (!isUtf8(bytes.subarray(start, at))) return `text that is not UTF-8 at byte ${start}`
    } else if (head.kind !== 'scalar' && !open.enter(head.count, head.kind === 'map')) {
      return `nesting deeper than ${plainMessageDepth} at byte ${start}`
    }
  } while (open.expectMore())
  return at === bytes.byteLength ? null : `${bytes.byteLength - at} bytes behind the message`
}

/** Arrays and maps that have begun and not ended. */
class OpenContainers {
  /** Values still to come, keys included; maps have an even number left where a key is next. */
  readonly #left: number[] = []
  readonly #isMap: boolean[] = []

  get keyIsNext(): boolean {
    return this.#isMap.at(-1) === true && this.#left.at(-1)! % 2 === 0
  }

  took(): void {
    if (this.#left.length > 0) this.#left[this.#left.length - 1]!--
  }

  /** False: too deep. */
  enter(count: number, isMap: boolean): boolean {
    this.#left.push(isMap ? count * 2 : count)
    this.#isMap.push(isMap)
    return this.#left.length <= plainMessageDepth
  }

  /** Leaves what is complete; false when everything is. */
  expectMore(): boolean {
    while (this.#left.at(-1) === 0) {
      this.#left.pop()
      this.#isMap.pop()
    }
    return this.#left.length > 0
  }
}

interface Head {
  readonly kind: 'scalar' | 'text' | 'array' | 'map'
  /** Of the head; a scalar is nothing else. */
  readonly byteLength: number
  /** Bytes of a text, elements of an array, entries of a map. */
  readonly count: number
}

/** Whole length of scalars by their first byte: nil, false, true, floats, unsigned and signed integers. */
const scalars: ReadonlyMap<number, number> = new Map([
  [0xc0, 1],
  [0xc2, 1],
  [0xc3, 1],
  [0xca, 5],
  [0xcb, 9],
  [0xcc, 2],
  [0xcd, 3],
  [0xce, 5],
  [0xcf, 9],
  [0xd0, 2],
  [0xd1, 3],
  [0xd2, 5],
  [0xd3, 9],
])

/** Kinds with a count of 1, 2 or 4 bytes behind their first byte. */
const counted: ReadonlyMap<number, readonly [Head['kind'], 1 | 2 | 4]> = new Map([
  [0xd9, ['text', 1]],
  [0xda, ['text', 2]],
  [0xdb, ['text', 4]],
  [0xdc, ['array', 2]],
  [0xdd, ['array', 4]],
  [0xde, ['map', 2]],
  [0xdf, ['map', 4]],
])

const truncated = 'the message ends in the middle of a value'

/** What begins at `at`, or what is wrong with it. */
function readHead(view: DataView, at: number): Head | string {
  const left = view.byteLength - at
  if (left < 1) return truncated
  const first = view.getUint8(at)
  if (first < 0x80 || first >= 0xe0) return { kind: 'scalar', byteLength: 1, count: 0 }
  if (first < 0x90) return { kind: 'map', byteLength: 1, count: first & 0xf }
  if (first < 0xa0) return { kind: 'array', byteLength: 1, count: first & 0xf }
  if (first < 0xc0) return { kind: 'text', byteLength: 1, count: first & 0x1f }
  const scalar = scalars.get(first)
  if (scalar !== undefined) {
    if (scalar > left) return truncated
    return isUnsafe(view, at, first)
      ? 'an integer that no number holds'
      : { kind: 'scalar', byteLength: scalar, count: 0 }
  }
  const known = counted.get(first)
  if (known === undefined) return `a type (0x${first.toString(16)}) that is not used here`
  const [kind, width] = known
  if (1 + width > left) return truncated
  const count = width === 1 ? view.getUint8(at + 1) : width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1)
  return { kind, byteLength: 1 + width, count }
}

function isUnsafe(view: DataView, at: number, first: number): boolean {
  if (first === 0xcf) return view.getBigUint64(at + 1) > BigInt(Number.MAX_SAFE_INTEGER)
  if (first !== 0xd3) return false
  const value = view.getBigInt64(at + 1)
  return value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)
}
