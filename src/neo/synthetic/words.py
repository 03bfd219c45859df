"""The words that the generator writes."""

_WORDS = """
able about above act add after again age ago air all also always and animal answer apple apply area arm army
art ask away baby back bad bag ball band bank base bath bear beat bed best big bird black blood blow blue
board boat body bone book born both box boy bread break brick bridge bring brown build burn bus busy buy
cake call camp car card care case cat chair change child city class clean clear clock close cloud coat
coffee cold color come cook cool corn count cow cross cry cup cut dance dark day deep desk dog door down
draw dream dress drink drive dry duck dust each ear early earth east easy eat egg eight end engine enter
even exit eye face fact fall family far farm fast father few field fight fill find fine fire first fish five
flag floor flower fly food foot forest four free fresh friend from front fruit full game garden gate gift
girl give glass gold good grass gray great green ground group grow hair half hand happy hard hat have head
hear heart heat heavy hello help here high hill home hope horse hot hotel hour house hundred ice idea image
inch iron island jacket job join juice jump keep key kid kind king kitchen knife know lake lamp land large
last late laugh law leaf learn leg lemon letter life light like line lion list little live long look love
low lunch machine made mail make man many map mark market meat metal middle milk mind minute mirror model
money month moon more morning mother mountain mouse mouth move music name near neck neo new next night nine
noise north nose note number ocean oil old one open orange order other oven over page paint pair paper park
part party pay pen pencil people pepper phone photo piano picture piece pig pink place plane plant plate
play please pocket point pool post potato price print pull push queen quick quiet radio rain read ready red
rest rice rich right ring river road rock roll roof room root rose round run sad safe sail sale salt same
sand save school sea season seat see seed sell seven shape sharp sheep shelf ship shirt shoe shop short side
sign silver sing sister six size skin sky sleep slow small smile smoke snow soap sock soft song soon sound
soup south space speak spoon sport spring square stand star start station stay step stone stop store storm
story street strong sugar summer sun sweet swim table tail take talk tall taste taxi tea teach team ten test
thank three ticket tiger time tired today tomato tool top town toy train travel tree triangle truck true
turn two under uncle unit up use valley very view village visit voice wait walk wall warm wash watch water
wave way weather week west wheel white wide wind window wine winter wolf woman wood word work world write
yard year yellow yes young zebra zero zoo
"""
WORDS = tuple(_WORDS.split())

FRUITS = ("apple", "pear", "plum", "kiwi", "lemon", "grape", "mango", "peach", "melon", "fig")
PETS = ("cat", "dog", "fish", "bird", "cow", "pig", "duck", "hen", "fox", "bear")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
TOWNS = ("Rome", "Oslo", "Lima", "Bern", "Cairo", "Paris", "Quito", "Seoul", "Delhi", "Kyiv")
LETTERS = tuple("ABCDEFGH")

STORES = (
    *("Corner Shop", "City Market", "Green Grocer", "Blue Cafe", "Sun Bakery", "Book Store", "Tea House"),
    *("Star Cafe", "Old Mill", "Farm Shop", "River Deli", "Pizza Place", "Fresh Foods", "Red Fox"),
)
GOODS = (
    *("apple", "bread", "milk", "tea", "coffee", "cake", "egg", "rice", "soap", "salt", "sugar", "juice"),
    *("pen", "book", "cheese", "butter", "fish", "meat", "soup", "pasta", "water", "lemon", "pie", "corn"),
)
