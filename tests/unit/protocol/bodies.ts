/** Values that a schema of the protocol accepts, made from the schema itself: a new message is covered without a new generator. */
import fc from 'fast-check'
import { z } from 'zod'

const words = fc.string({ unit: fc.constantFrom(...'abcXYZ019.-_'), minLength: 1, maxLength: 70 })
const hexadecimal = fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), maxLength: 140 })
const texts = fc.oneof(words, hexadecimal, fc.string({ unit: 'grapheme', maxLength: 40 }), fc.constant(''))

const accepts =
  (schema: z.ZodType) =>
  (value: unknown): boolean =>
    schema.safeParse(value).success

function numbersOf(schema: z.ZodNumber): fc.Arbitrary<number> {
  const minimum = Math.max(schema.minValue ?? 0, Number.MIN_SAFE_INTEGER)
  const maximum = Math.min(schema.maxValue ?? Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
  const anywhere = fc.integer({ min: Math.ceil(minimum), max: maximum })
  return fc.oneof(anywhere, fc.constantFrom(minimum, maximum), fc.integer({ min: 2 ** 24, max: 2 ** 48 - 1 }))
}

/** Anything the schema accepts, with and without what may be left out. */
export function bodiesOf(schema: z.ZodType): fc.Arbitrary<unknown> {
  if (schema instanceof z.ZodObject) {
    const fields = Object.entries(fieldsOf(schema))
    const optional = fields.filter(([, field]) => accepts(field)(undefined)).map(([name]) => name)
    const required = fields.map(([name]) => name).filter((name) => !optional.includes(name))
    return fc.record(Object.fromEntries(fields.map(([name, field]) => [name, bodiesOf(field)])), {
      requiredKeys: required,
      noNullPrototype: true,
    })
  }
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) return bodiesOf(schema.unwrap() as z.ZodType)
  if (schema instanceof z.ZodUnion) return fc.oneof(...(schema.options as z.ZodType[]).map(bodiesOf))
  if (schema instanceof z.ZodRecord) return recordsOf(schema).filter(accepts(schema))
  if (schema instanceof z.ZodEnum) return fc.constantFrom(...schema.options)
  if (schema instanceof z.ZodBoolean) return fc.boolean()
  if (schema instanceof z.ZodNumber) return numbersOf(schema).filter(accepts(schema))
  if (schema instanceof z.ZodString) return texts.filter(accepts(schema))
  throw new Error(`no values are known for a schema of type ${schema.def.type}`)
}

function recordsOf(schema: z.ZodRecord): fc.Arbitrary<Record<string, unknown>> {
  return fc.dictionary(texts.filter(accepts(schema.keyType as z.ZodType)), bodiesOf(schema.valueType as z.ZodType), {
    maxKeys: 16,
    noNullPrototype: true,
  })
}

export const fieldsOf = (schema: z.ZodObject): Readonly<Record<string, z.ZodType>> =>
  schema.shape as Readonly<Record<string, z.ZodType>>

export interface Leaf {
  readonly path: string
  readonly schema: z.ZodType
}

/** Every text and number anywhere in a schema. */
export function leavesOf(schema: z.ZodType, path: string): Leaf[] {
  if (schema instanceof z.ZodObject) {
    return Object.entries(fieldsOf(schema)).flatMap(([name, field]) => leavesOf(field, `${path}.${name}`))
  }
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return leavesOf(schema.unwrap() as z.ZodType, path)
  }
  if (schema instanceof z.ZodUnion) return (schema.options as z.ZodType[]).flatMap((one) => leavesOf(one, `${path}|`))
  if (schema instanceof z.ZodRecord) {
    return [
      ...leavesOf(schema.keyType as z.ZodType, `${path}{key}`),
      ...leavesOf(schema.valueType as z.ZodType, `${path}{}`),
    ]
  }
  return [{ path, schema }]
}
