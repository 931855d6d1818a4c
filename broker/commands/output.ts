/**
 * What commands print: one object a line as the `rdma` tool does, `noun key value key value`, or JSON. Names that come from clients go
 * through `printable`: a job may not steer the operator's terminal.
 */
import type { SharedVerbsError } from '../../protocol/errors.js'

export type FieldValue = string | number | boolean | null | undefined
export type Fields = Readonly<Record<string, FieldValue>>

export interface Line {
  readonly noun: string
  readonly fields: Fields
}

/** camelCase in JSON, kebab-case in text. */
export const textKey = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, '?')
}

function textValue(value: string | number | boolean): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (typeof value === 'number') return String(Number.isInteger(value) ? value : Number(value.toFixed(3)))
  const clean = printable(value)
  return clean === '' || /[\s"]/.test(clean) ? JSON.stringify(clean) : clean
}

/** Fields that are null or undefined are left out of the text; JSON shows them as null. */
export function textLine({ noun, fields }: Line): string {
  const pairs = Object.entries(fields).flatMap(([key, value]) =>
    value === null || value === undefined ? [] : [`${textKey(key)} ${textValue(value)}`],
  )
  return [noun, ...pairs].join(' ')
}

export function printLine(line: Line): void {
  process.stdout.write(`${textLine(line)}\n`)
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

/** `broker: <code>: <message>`, or one JSON object, on stderr. */
export function printError(error: SharedVerbsError, asJson: boolean): void {
  const { code, category, message, context } = error
  const [first = '', ...more] = message.split('\n').map(printable)
  const text = asJson
    ? JSON.stringify({ error: { code, category, message, context } })
    : [`broker: ${code}: ${first}`, ...more.map((line) => `  ${line}`)].join('\n')
  process.stderr.write(`${text}\n`)
}

/** 1,234,567 */
export const grouped = (value: number): string => Math.round(value).toLocaleString('en-US')

const unitNames = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** 3.4 MiB */
export function byteText(byteLength: number): string {
  let unit = 0
  let value = byteLength
  while (value >= 1024 && unit < unitNames.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${unitNames[unit]}`
}

/** 0.2s, 12s, 3m20s, 5h03m, 2d04h */
export function durationText(durationMs: number): string {
  const seconds = durationMs / 1000
  if (seconds < 10) return `${seconds.toFixed(1)}s`
  if (seconds < 60) return `${Math.floor(seconds)}s`
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0')
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h${two((seconds % 3600) / 60)}m`
  return `${Math.floor(seconds / 86_400)}d${two((seconds % 86_400) / 3600)}h`
}
