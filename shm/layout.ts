/**
 * Layouts of shared records, declared once: ordered fields give offsets, size, cold accessors, a printed table and a fingerprint.
 *
 *   const row = layout('row', { state: word(), id: f64(), name: text(32), rest: gap(20) })
 *   row.byteLength            64
 *   row.offset.id             bytes from the start of the record
 *   row.word.state            32-bit words from the start of the record (hot paths add it to a base index)
 *   row.read(memory, base)    { state, id, name } copied out, for cold paths
 *
 * A field that is not naturally aligned is refused: padding is written down as `gap(n)` or `cacheLine()`, never implied.
 * Fields of kind `word` are shared: hot paths reach them only through `Words`. `read` takes a snapshot of them.
 */
import type { Memory } from './memory.js'

export type FieldKind = 'word' | 'u32' | 'i32' | 'f64' | 'i64' | 'text' | 'bytes' | 'gap' | 'line'

export interface Field<Value = unknown> {
  readonly kind: FieldKind
  readonly byteLength: number
  readonly alignment: number
  /** Carries the value's type; never present at run time. */
  readonly value?: Value
}

/** A 32-bit word shared between processes, reached through `Words`. */
export const word = (): Field<number> => ({ kind: 'word', byteLength: 4, alignment: 4 })
export const u32 = (): Field<number> => ({ kind: 'u32', byteLength: 4, alignment: 4 })
export const i32 = (): Field<number> => ({ kind: 'i32', byteLength: 4, alignment: 4 })
/** A whole number up to 2^53 (identifiers, offsets, byte lengths) or any double: no BigInt on data paths. */
export const f64 = (): Field<number> => ({ kind: 'f64', byteLength: 8, alignment: 8 })
/** A 64-bit operand of an atomic; the only place where BigInt is met. */
export const i64 = (): Field<bigint> => ({ kind: 'i64', byteLength: 8, alignment: 8 })
/** UTF-8 text, zero padded; cut at a whole character when too long. */
export const text = (byteLength: number): Field<string> => ({ kind: 'text', byteLength, alignment: 1 })
export const bytes = (byteLength: number): Field<Uint8Array> => ({ kind: 'bytes', byteLength, alignment: 1 })
/** Unused bytes, written down. */
export const gap = (byteLength: number): Field<never> => ({ kind: 'gap', byteLength, alignment: 1 })
/** Unused bytes up to the next 64-byte line. */
export const cacheLine = (): Field<never> => ({ kind: 'line', byteLength: 0, alignment: 1 })

type Fields = Readonly<Record<string, Field>>
type NamedFields<F extends Fields> = { [K in keyof F as F[K] extends Field<never> ? never : K]: F[K] }
export type RecordOf<F extends Fields> = {
  [K in keyof NamedFields<F>]: F[K] extends Field<infer Value> ? Value : never
}

export interface PlacedField {
  readonly name: string
  readonly kind: FieldKind
  readonly offset: number
  readonly byteLength: number
}

export interface Layout<F extends Fields = Fields> {
  readonly name: string
  readonly byteLength: number
  readonly fields: readonly PlacedField[]
  /** Byte offset of each field. */
  readonly offset: { readonly [K in keyof F]: number }
  /** Offset of each 4-byte aligned field in 32-bit words; NaN for others. */
  readonly word: { readonly [K in keyof F]: number }
  read(memory: Memory, base: number): RecordOf<F>
  write(memory: Memory, base: number, values: Partial<RecordOf<F>>): void
  /** The table that documents print. */
  describe(): string
  /** Text from which the ABI fingerprint is computed. */
  signature(): string
}

export class LayoutError extends Error {
  readonly code = 'layout-invalid'
}

const LINE_BYTES = 64
const decoder = new TextDecoder()
const encoder = new TextEncoder()

export function layout<const F extends Fields>(name: string, declared: F): Layout<F> {
  const fields = place(name, declared)
  const byteLength = fields.reduce((end, field) => Math.max(end, field.offset + field.byteLength), 0)
  const widest = Math.max(...Object.values(declared).map((field) => field.alignment))
  if (byteLength % widest !== 0) {
    throw new LayoutError(`layout ${name}: ${byteLength} bytes do not repeat at alignment ${widest}; end it with a gap`)
  }
  const named = fields.filter((field) => field.kind !== 'gap' && field.kind !== 'line')
  const offset = Object.fromEntries(fields.map((field) => [field.name, field.offset])) as Layout<F>['offset']
  const word = Object.fromEntries(
    fields.map((field) => [field.name, field.offset % 4 === 0 ? field.offset / 4 : Number.NaN]),
  ) as Layout<F>['word']
  return {
    name,
    byteLength,
    fields,
    offset,
    word,
    read: (memory, base) =>
      Object.fromEntries(
        named.map((field) => [field.name, readField(memory, base + field.offset, field)]),
      ) as RecordOf<F>,
    write: (memory, base, values) => {
      for (const field of named) {
        const value = (values as Record<string, unknown>)[field.name]
        if (value !== undefined) writeField(memory, base + field.offset, field, value)
      }
    },
    describe: () => [`${name} (${byteLength} bytes)`, ...fields.map((field) => describeField(field))].join('\n'),
    signature: () =>
      `${name}:${byteLength}:${fields.map((field) => `${field.name}/${field.kind}/${field.offset}/${field.byteLength}`).join(',')}`,
  }
}

function place(name: string, declared: Fields): PlacedField[] {
  let end = 0
  return Object.entries(declared).map(([fieldName, field]) => {
    const offset = end
    if (offset % field.alignment !== 0) {
      throw new LayoutError(
        `layout ${name}: field ${fieldName} at byte ${offset} needs alignment ${field.alignment}; add a gap before it`,
      )
    }
    const byteLength = field.kind === 'line' ? (LINE_BYTES - (offset % LINE_BYTES)) % LINE_BYTES : field.byteLength
    end = offset + byteLength
    return { name: fieldName, kind: field.kind, offset, byteLength }
  })
}

function describeField(field: PlacedField): string {
  return `  ${String(field.offset).padStart(5)}  ${String(field.byteLength).padStart(5)}  ${field.kind.padEnd(5)}  ${field.name}`
}

function readField(memory: Memory, at: number, field: PlacedField): unknown {
  switch (field.kind) {
    case 'word':
    case 'i32':
      return memory.view.getInt32(at, true)
    case 'u32':
      return memory.view.getUint32(at, true)
    case 'f64':
      return memory.view.getFloat64(at, true)
    case 'i64':
      return memory.view.getBigInt64(at, true)
    case 'text': {
      const raw = memory.u8.slice(at, at + field.byteLength)
      const end = raw.indexOf(0)
      return decoder.decode(end < 0 ? raw : raw.subarray(0, end))
    }
    default:
      return memory.u8.slice(at, at + field.byteLength)
  }
}

function writeField(memory: Memory, at: number, field: PlacedField, value: unknown): void {
  switch (field.kind) {
    case 'word':
    case 'i32':
    case 'u32':
      memory.view.setInt32(at, Number(value) | 0, true)
      return
    case 'f64':
      memory.view.setFloat64(at, Number(value), true)
      return
    case 'i64':
      memory.view.setBigInt64(at, BigInt(value as bigint), true)
      return
    case 'text': {
      const target = memory.u8.subarray(at, at + field.byteLength)
      const { written } = encoder.encodeInto(String(value), target)
      target.fill(0, written)
      return
    }
    default:
      memory.u8.set((value as Uint8Array).subarray(0, field.byteLength), at)
  }
}
